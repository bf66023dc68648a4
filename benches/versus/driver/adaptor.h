/* What a library must offer to be measured: adaptors (kolo.c, mpi.c, ccl.cpp, ideal.c) define `adaptor`. */
#ifndef ADAPTOR_H
#define ADAPTOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum collective { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, COLLECTIVES };
enum dtype { F32, F16, BF16, F8E4M3, DTYPES };

/* Where the buffers of a call lie. */
enum placement {
  OUT,        /* ordinary memory, out of place */
  IN,         /* ordinary memory, in place: the smaller buffer is this rank's block of the larger */
  LIBRARY_IN, /* the library's own memory, in place */
  LIBRARY,    /* the library's own memory, out of place */
  PLACEMENTS
};

/* One operation, as a library wants it told. `count` is in elements: of the vector for all-reduce and
 * broadcast, of one rank's block for all-gather and reduce-scatter. A broadcast's data is `output`. */
struct call {
  const void *input;
  void *output;
  size_t count;
  enum dtype dtype;
};

/* 0: done. Otherwise `adaptor.error` says why. */
typedef int operation(const struct call *call);

struct adaptor {
  /* Joins the job. `scratch` is zeroed memory that all ranks of the job share. */
  int (*start)(int rank, int size, void *scratch, size_t scratch_bytes);
  int (*finish)(void);
  const char *(*error)(void);
  const char *(*version)(void);
  /* By collective; null where there is none. */
  operation *operations[COLLECTIVES];
  /* What of an operation is not to be counted; null for nothing. */
  operation *uncounted;
  /* The library's own memory; all ranks call. Null where there is none. */
  int (*allocate)(size_t bytes, void **memory);
  int (*release)(void *memory);
};

extern const struct adaptor adaptor;

#ifdef __cplusplus
}
#endif
#endif
