// a part of a KV cache set aside in host memory and taken back, in the form that llama.cpp writes states in
#pragma once

#include "ggml-backend.h"
#include "llama-io.h"

#include <cstring>
#include <stdexcept>
#include <vector>

class aim_state_writer : public llama_io_write_i {
public:
    void write(const void * src, size_t size) override {
        const auto * bytes = static_cast<const uint8_t *>(src);
        data.insert(data.end(), bytes, bytes + size);
    }

    void write_tensor(ggml_tensor * tensor, size_t offset, size_t size) override {
        data.resize(data.size() + size);
        ggml_backend_tensor_get(tensor, data.data() + data.size() - size, offset, size);
    }

    size_t n_bytes() override { return data.size(); }

    std::vector<uint8_t> data;
};

class aim_state_reader : public llama_io_read_i {
public:
    explicit aim_state_reader(const std::vector<uint8_t> & data) : data(data) {}

    void read(void * dst, size_t size) override {
        memcpy(dst, take(size), size);
    }

    void read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override {
        ggml_backend_tensor_set(tensor, take(size), offset, size);
    }

    size_t n_bytes() override { return n_read; }

private:
    const std::vector<uint8_t> & data;

    size_t n_read = 0;

    const uint8_t * take(size_t size) {
        if (size > data.size() - n_read) {
            throw std::runtime_error("a state that was set aside is too short");
        }

        n_read += size;

        return data.data() + n_read - size;
    }
};
