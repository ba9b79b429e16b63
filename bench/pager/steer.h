/* The preloaded allocator's side of the counters. */
#ifndef EPC_STEER_H
#define EPC_STEER_H
#include "epc.h"

void epc_steer_count(epc_counters *counters);

#endif
