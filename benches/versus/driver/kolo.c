/* kolo, through its C ABI. */
#include "adaptor.h"

#include <kolo.h>
#include <stdio.h>

static struct kolo_comm *comm;

static const enum kolo_dtype TYPES[] = {
    [F32] = KOLO_F32, [F16] = KOLO_F16, [BF16] = KOLO_BF16, [F8E4M3] = KOLO_F8E4M3};

static int start(int rank, int size, void *scratch, size_t scratch_bytes) {
  (void)scratch, (void)scratch_bytes;
  if (kolo_init(&comm) != KOLO_OK) return 1;
  return kolo_rank(comm) != rank || kolo_size(comm) != size;
}

static int finish(void) { return kolo_finalize(comm) != KOLO_OK; }

static int all_reduce(const struct call *call) {
  return kolo_all_reduce(comm, call->input, call->output, call->count, TYPES[call->dtype], KOLO_SUM) !=
         KOLO_OK;
}

static int all_gather(const struct call *call) {
  return kolo_all_gather(comm, call->input, call->output, call->count, TYPES[call->dtype]) != KOLO_OK;
}

static int reduce_scatter(const struct call *call) {
  return kolo_reduce_scatter(comm, call->input, call->output, call->count, TYPES[call->dtype], KOLO_SUM) !=
         KOLO_OK;
}

static int broadcast(const struct call *call) {
  return kolo_broadcast(comm, call->output, call->count, TYPES[call->dtype], 0) != KOLO_OK;
}

static int allocate(size_t bytes, void **memory) { return kolo_alloc(comm, bytes, memory) != KOLO_OK; }
static int release(void *memory) { return kolo_free(comm, memory) != KOLO_OK; }

const struct adaptor adaptor = {
    .start = start,
    .finish = finish,
    .error = kolo_last_error,
    .version = kolo_version,
    .operations = {all_reduce, all_gather, reduce_scatter, broadcast},
    .allocate = allocate,
    .release = release,
};
