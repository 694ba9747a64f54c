// what ggml-rpc's hooks call: a server that is gone is a failed graph, and not the end of the process
#pragma once

#include "../ggml-cpu/aim/aim-mark.h"

#include <string.h>

#ifndef _WIN32
#  include <netinet/in.h>
#  include <netinet/tcp.h>
#  include <sys/socket.h>
#endif

// in place of what a server that is gone would have answered: nothing allocated, nothing cached. A buffer's address is
// asserted not to be null, so it is one that nobody reads or writes
inline void aim_rpc_no_answer(void * output, size_t size, bool is_address) {
    memset(output, is_address ? 1 : 0, size);
}

// a peer that vanished without a word (no power, no network) is noticed after 10 s and 4 unanswered questions, 5 s apart;
// while it computes, its system answers them
template <typename S> void aim_rpc_keep_alive(S fd) {
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, (const char *) &on, sizeof(on));
#if defined(TCP_KEEPIDLE) && defined(TCP_KEEPINTVL) && defined(TCP_KEEPCNT)
    const int idle = 10, interval = 5, count = 4;
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE,  (const char *) &idle,     sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, (const char *) &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT,   (const char *) &count,    sizeof(count));
#endif
}
