/* What the ranks of a job share beside the library under test: a barrier and a table of times, so that no
 * library is measured by its own means. */
#ifndef BOARD_H
#define BOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_RANKS = 16, LINE = 128, SCRATCH = 16384 };

/* What a rank answers that waited for one which failed. */
#define BYSTANDER "another rank failed"

/* Zeroed: ready. */
struct barrier {
  _Alignas(LINE) atomic_uint arrived;
  _Alignas(LINE) atomic_uint generation;
};

struct board {
  struct barrier barrier;
  _Alignas(LINE) atomic_bool failed; /* a rank met an error: nobody waits for it any more */
  _Alignas(LINE) atomic_uint ping;
  _Alignas(LINE) atomic_uint pong;
  _Alignas(LINE) double seconds[MOST_RANKS];
  _Alignas(LINE) unsigned char scratch[SCRATCH];
};

/* Maps the board of the job whose folder this is. Null on an error. */
struct board *board_open(const char *folder);

/* Waits for all of `size` ranks, or until `*failed`; `crowded`: more of them than cores. False: failed. */
bool barrier_wait(struct barrier *barrier, int size, bool crowded, const atomic_bool *failed);

/* The board's own. False: a rank has failed. */
bool board_barrier(struct board *board, int size, bool crowded);

/* Rank `first` and rank `last` bounce a cache line; returns nanoseconds of a round trip. */
double board_line(struct board *board, int rank, int first, int last);

double seconds_now(void);

#endif
