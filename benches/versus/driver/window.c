/* The measuring loop, the same for every library:
 *
 *     for each operation:   rewrite the whole input; operate; read the whole output
 *
 * in batches of about a millisecond, which all ranks begin together. A batch takes as long as its slowest
 * rank. The same loop without the operation is measured too, and subtracted by whoever reads the result.
 *
 *   check      two operations, every element compared (when asked)
 *   calibrate  1, 2, 4, ... operations until a batch takes a quarter of a millisecond; also warms up
 *   loop       two thirds of the window
 *   bare       the last third
 *
 * What is read is summed up, and the sum is compared with what the inputs demand: so each timed operation is
 * verified as well. */
#include "window.h"

#include "values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST_BATCHES = 512, FEWEST_BATCHES = 3 };
/* How much longer a window may be for the sake of FEWEST_BATCHES. */
static const double PATIENCE = 4;
static const double BATCH = 1e-3, CALIBRATED = 0.25e-3;

struct state {
  const struct job *job;
  const struct window *window;
  struct call call;
  uint32_t *own; /* what this rank rewrites */
  size_t own_words;
  const uint32_t *result; /* what it reads */
  size_t result_words;
  size_t block_words; /* one rank's block */
  void *memory[2];
  size_t memory_bytes[2];
  unsigned turn;
  uint32_t total;          /* of all words read */
  uint32_t digests[TURNS]; /* of the words of one operation, by turn */
  uint32_t words[TURNS];   /* what this rank writes, by turn */
};

static char failure[256];

static bool library(enum placement placement) { return placement == LIBRARY || placement == LIBRARY_IN; }

static bool blocked(enum collective collective) {
  return collective == ALL_GATHER || collective == REDUCE_SCATTER;
}

/* Memory `index` of the window: the library's own or fresh pages. */
static void *obtain(struct state *s, int index, size_t bytes) {
  void *memory = NULL;
  if (library(s->window->placement)) {
    if (adaptor.allocate(bytes, &memory) != 0) return NULL;
  } else {
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
  }
  memset(memory, 0, bytes);
  s->memory[index] = memory;
  s->memory_bytes[index] = bytes;
  return memory;
}

static void release(struct state *s) {
  for (int index = 0; index < 2; index++) {
    if (s->memory[index] == NULL) continue;
    if (library(s->window->placement))
      adaptor.release(s->memory[index]);
    else
      munmap(s->memory[index], s->memory_bytes[index]);
  }
}

/* Where input and output lie. */
static bool lay_out(struct state *s) {
  const struct window *w = s->window;
  size_t block = w->bytes / (blocked(w->collective) ? (size_t)s->job->size : 1);
  size_t input = w->collective == ALL_GATHER ? block : w->bytes;
  size_t output = w->collective == REDUCE_SCATTER ? block : w->bytes;
  char *in, *out;
  bool in_place = w->placement == IN || w->placement == LIBRARY_IN || w->collective == BROADCAST;
  if (in_place) {
    char *whole = obtain(s, 0, w->bytes);
    if (whole == NULL) return false;
    size_t mine = blocked(w->collective) ? (size_t)s->job->rank * block : 0;
    in = whole + (input < w->bytes ? mine : 0);
    out = whole + (output < w->bytes ? mine : 0);
  } else {
    in = obtain(s, 0, input);
    out = obtain(s, 1, output);
    if (in == NULL || out == NULL) return false;
  }
  s->call = (struct call){in, out, block / dtype_bytes[w->dtype], w->dtype};
  s->own = (uint32_t *)in, s->own_words = input / sizeof(uint32_t);
  s->result = (const uint32_t *)out, s->result_words = output / sizeof(uint32_t);
  s->block_words = block / sizeof(uint32_t);
  return true;
}

/* What word `word` of the result has to be after operation `turn`. */
static unsigned demanded(const struct state *s, unsigned turn, size_t word) {
  const struct window *w = s->window;
  if (w->collective == BROADCAST) return value(w->dtype, 0, turn, word);
  if (w->collective == ALL_GATHER)
    return value(w->dtype, (unsigned)(word / s->block_words), turn, word % s->block_words);
  if (w->collective == REDUCE_SCATTER) word += (size_t)s->job->rank * s->block_words;
  unsigned sum = 0;
  for (int rank = 0; rank < s->job->size; rank++) sum += value(w->dtype, (unsigned)rank, turn, word);
  return sum;
}

/* Two operations with inputs that differ from word to word. */
static const char *check(struct state *s) {
  const struct window *w = s->window;
  uint32_t codes[LARGEST + 1];
  for (unsigned number = 0; number <= LARGEST; number++) codes[number] = encode(w->dtype, number);
  for (unsigned turn = 0; turn < 2; turn++) {
    for (size_t word = 0; word < s->own_words; word++)
      s->own[word] = codes[value(w->dtype, (unsigned)s->job->rank, turn, word)];
    if (adaptor.operations[w->collective](&s->call) != 0) return adaptor.error();
    for (size_t word = 0; word < s->result_words; word++) {
      uint32_t right = codes[demanded(s, turn, word)];
      if (s->result[word] == right) continue;
      snprintf(failure, sizeof failure, "wrong result: word %zu of %zu is %08x instead of %08x", word,
               s->result_words, s->result[word], right);
      return failure;
    }
  }
  return NULL;
}

/* The words and digests of the timed loop, where all words of a rank's input are alike. */
static void foresee(struct state *s) {
  for (unsigned turn = 0; turn < TURNS; turn++) {
    s->words[turn] = encode(s->window->dtype, value(s->window->dtype, (unsigned)s->job->rank, turn, 0));
    uint32_t digest = 0;
    if (s->window->collective == ALL_GATHER) {
      for (int rank = 0; rank < s->job->size; rank++) {
        unsigned number = value(s->window->dtype, (unsigned)rank, turn, 0);
        digest += (uint32_t)s->block_words * encode(s->window->dtype, number);
      }
    } else {
      unsigned number = 0;
      int ranks = s->window->collective == BROADCAST ? 1 : s->job->size;
      for (int rank = 0; rank < ranks; rank++) number += value(s->window->dtype, (unsigned)rank, turn, 0);
      digest = (uint32_t)s->result_words * encode(s->window->dtype, number);
    }
    s->digests[turn] = digest;
  }
}

static int nothing(const struct call *call) {
  (void)call;
  return 0;
}

/* The loop itself. Returns the operation's first failure. */
__attribute__((noinline)) static int lap(struct state *s, operation *operate, unsigned long repeats) {
  uint32_t *own = s->own, total = s->total;
  const uint32_t *result = s->result;
  const size_t own_words = s->own_words, result_words = s->result_words;
  unsigned turn = s->turn;
  int status = 0;
  for (unsigned long repeat = 0; repeat < repeats && status == 0; repeat++) {
    uint32_t word = s->words[turn++ % TURNS];
    for (size_t at = 0; at < own_words; at++) own[at] = word;
    status = operate(&s->call);
    for (size_t at = 0; at < result_words; at++) total += result[at];
  }
  s->total = total;
  s->turn = turn;
  return status;
}

/* A lap that all ranks begin together; stores the slowest rank's seconds, the same on all ranks. */
static const char *together(struct state *s, operation *operate, unsigned long repeats, double *slowest) {
  const struct job *job = s->job;
  if (!board_barrier(job->board, job->size, job->crowded)) return BYSTANDER;
  double begin = seconds_now();
  int status = lap(s, operate, repeats);
  job->board->seconds[job->rank] = seconds_now() - begin;
  if (status != 0) return adaptor.error();
  if (!board_barrier(job->board, job->size, job->crowded)) return BYSTANDER;
  double most = 0;
  for (int rank = 0; rank < job->size; rank++)
    if (job->board->seconds[rank] > most) most = job->board->seconds[rank];
  *slowest = most;
  return NULL;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Batches for `seconds` seconds; stores the median time of one operation. */
static const char *batches(struct state *s, operation *operate, unsigned long repeats, double seconds,
                           double *median, unsigned *count) {
  double found[MOST_BATCHES], spent = 0, first;
  unsigned n = 0;
  const char *error = together(s, operate, 1, &first);
  /* All ranks see the same times, so they end alike. */
  while (error == NULL && n < MOST_BATCHES &&
         (n == 0 || spent < seconds || (n < FEWEST_BATCHES && spent < PATIENCE * seconds))) {
    error = together(s, operate, repeats, &found[n]);
    spent += found[n++];
  }
  if (error != NULL) return error;
  qsort(found, n, sizeof *found, ascending);
  *median = 0.5 * (found[(n - 1) / 2] + found[n / 2]) / (double)repeats;
  *count = n;
  return NULL;
}

/* How many operations make a batch. */
static const char *calibrate(struct state *s, operation *operate, unsigned long *repeats) {
  double took = 0;
  unsigned long n = 1;
  for (;; n *= 2) {
    const char *error = together(s, operate, n, &took);
    if (error != NULL) return error;
    if (took >= CALIBRATED) break;
  }
  double wanted = BATCH / took * (double)n;
  *repeats = wanted < 1 ? 1 : (unsigned long)wanted;
  return NULL;
}

/* The sum of all that was read against the sum of all that the inputs demanded. */
static const char *settle(struct state *s, unsigned from) {
  uint32_t due = 0;
  for (unsigned turn = from; turn != s->turn; turn++) due += s->digests[turn % TURNS];
  if (due == s->total) return NULL;
  snprintf(failure, sizeof failure, "wrong results in the timed loop: words sum to %08x instead of %08x",
           s->total, due);
  return failure;
}

static const char *measure(struct state *s, struct times *times) {
  operation *operate = adaptor.operations[s->window->collective];
  operation *idle = adaptor.uncounted ? adaptor.uncounted : nothing;
  const char *error = NULL;
  unsigned ignored;
  if (operate == NULL) return "no such collective";
  if (library(s->window->placement) && adaptor.allocate == NULL) return "no memory of its own";
  if (!lay_out(s)) return "no memory";
  if (s->window->check) error = check(s);
  foresee(s);
  if (error == NULL) error = calibrate(s, operate, &times->repeats);
  if (error == NULL)
    error = batches(s, operate, times->repeats, s->window->seconds * 2 / 3, &times->loop, &times->batches);
  if (error == NULL) error = settle(s, 0);
  if (error == NULL) error = batches(s, idle, times->repeats, s->window->seconds / 3, &times->bare, &ignored);
  return error;
}

const char *window_measure(const struct job *job, const struct window *window, struct times *times) {
  struct state state = {.job = job, .window = window};
  const char *error = measure(&state, times);
  /* Memory that others see may go when all are done. */
  if (error == NULL && !board_barrier(job->board, job->size, job->crowded)) error = BYSTANDER;
  release(&state);
  return error;
}
