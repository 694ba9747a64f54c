// a failure on its way to the C interface
#pragma once

#include "aim-llama.h"

#include <stdexcept>
#include <string>

struct aim_error : std::runtime_error {
    aim_error(aim_status status, const std::string & text) : std::runtime_error(text), status(status) {}

    const aim_status status;
};
