// What ggml-vulkan needs for Mesa's Vulkan device that computes on the CPU (lavapipe): only in builds with
// -DAIM_LAVAPIPE=ON, which `make vulkan-check` makes. The linker puts __wrap_vkGetInstanceProcAddr in the way.
//
// Every descriptor set of ggml-vulkan has room for MAX_PARAMETER_COUNT buffers, a shader uses the first few, and a set is
// used again by shaders that use fewer: behind them it names buffers that may be gone, which Vulkan allows. llvmpipe (Mesa
// 22.3) takes a reference to every buffer of a set all the same and counts in freed memory: "corrupted double-linked list",
// or a crash, some graphs later. So here the rest of a set names the last buffer once more.

#include "ggml-vulkan-types.h"

#include <cstring>
#include <vector>

static PFN_vkUpdateDescriptorSets update_sets;

static VKAPI_ATTR void VKAPI_CALL update_whole_sets(VkDevice device, uint32_t n_writes, const VkWriteDescriptorSet * writes,
        uint32_t n_copies, const VkCopyDescriptorSet * copies) {
    for (uint32_t i = 0; i < n_writes; ++i) {
        VkWriteDescriptorSet write = writes[i];

        GGML_ASSERT(write.dstBinding == 0 && write.descriptorType == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER && write.descriptorCount > 0);

        std::vector<VkDescriptorBufferInfo> buffers(write.pBufferInfo, write.pBufferInfo + write.descriptorCount);
        buffers.resize(MAX_PARAMETER_COUNT, VkDescriptorBufferInfo(buffers.back()));

        write.descriptorCount = buffers.size();
        write.pBufferInfo     = buffers.data();
        update_sets(device, 1, &write, 0, nullptr);
    }

    update_sets(device, 0, nullptr, n_copies, copies);
}

extern "C" VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL __real_vkGetInstanceProcAddr(VkInstance instance, const char * name);

extern "C" VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL __wrap_vkGetInstanceProcAddr(VkInstance instance, const char * name) {
    const PFN_vkVoidFunction found = __real_vkGetInstanceProcAddr(instance, name);

    if (found && std::strcmp(name, "vkUpdateDescriptorSets") == 0) {
        update_sets = (PFN_vkUpdateDescriptorSets) found;
        return (PFN_vkVoidFunction) update_whole_sets;
    }

    return found;
}
