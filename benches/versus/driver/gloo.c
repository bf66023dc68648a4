/* gloo, through Python: gloo.py loads this driver as a library, fills `python`, and calls main. */
#include "adaptor.h"

struct python {
  int (*start)(int rank, int size);
  int (*finish)(void);
  const char *(*error)(void);
  const char *version;
  operation *operations[COLLECTIVES];
};

struct python python;

static int start(int rank, int size, void *scratch, size_t scratch_bytes) {
  (void)scratch, (void)scratch_bytes;
  return python.start(rank, size);
}

static int finish(void) { return python.finish(); }
static const char *error(void) { return python.error(); }
static const char *version(void) { return python.version; }
static int all_reduce(const struct call *call) { return python.operations[ALL_REDUCE](call); }
static int all_gather(const struct call *call) { return python.operations[ALL_GATHER](call); }
static int reduce_scatter(const struct call *call) { return python.operations[REDUCE_SCATTER](call); }
static int broadcast(const struct call *call) { return python.operations[BROADCAST](call); }

const struct adaptor adaptor = {
    .start = start,
    .finish = finish,
    .error = error,
    .version = version,
    .operations = {all_reduce, all_gather, reduce_scatter, broadcast},
};
