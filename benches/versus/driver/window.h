/* One window of measurement: one collective at one size, for some milliseconds, on all ranks of a job. */
#ifndef WINDOW_H
#define WINDOW_H

#include "adaptor.h"
#include "board.h"

/* This rank and its job. */
struct job {
  struct board *board;
  int rank, size;
  bool crowded; /* more ranks than cores */
};

struct window {
  enum collective collective;
  enum placement placement;
  enum dtype dtype;
  size_t bytes;   /* of the whole vector */
  double seconds; /* how long to measure */
  bool check;     /* whether to compare each element first */
};

/* Seconds of one operation: medians over batches of the slowest rank's time. */
struct times {
  double loop;           /* rewrite the input, operate, read the output */
  double bare;           /* the same without the operation */
  unsigned long repeats; /* operations in a batch */
  unsigned batches;
};

/* Null, or what went wrong. The times are rank 0's to tell. */
const char *window_measure(const struct job *job, const struct window *window, struct times *times);

#endif
