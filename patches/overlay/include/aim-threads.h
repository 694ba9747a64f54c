// work in parts, each in a thread of its own where one is to be had. what a part throws is thrown to the caller when all are done:
// an exception that leaves a thread ends the process
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

// calls part(i) for i in [0, n), the first one in the caller's thread
template <typename F>
void aim_in_threads(int64_t n, const F & part) {
    std::mutex         lock;
    std::exception_ptr thrown;

    const auto run = [&](int64_t i) {
        try {
            part(i);
        } catch (...) {
            const std::lock_guard<std::mutex> guard(lock);
            thrown = std::current_exception();
        }
    };

    std::vector<std::thread> others;
    others.reserve(n);

    int64_t n_begun = 1;

    for (; n_begun < n; ++n_begun) {
        try {
            others.emplace_back(run, n_begun);
        } catch (const std::exception &) { // no thread, or no memory for one: those that are there do it
            break;
        }
    }

    run(0);

    for (int64_t i = n_begun; i < n; ++i) {
        run(i);
    }

    for (std::thread & other : others) {
        other.join();
    }

    if (thrown) {
        std::rethrow_exception(thrown);
    }
}
