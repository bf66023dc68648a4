/* One rank of a job under measurement. It joins the job through the library it is built against, says so, and
 * then waits, blocked, for commands; one line each, and one line in answer (JSON).
 *
 *   driver FOLDER CORES [once]
 *       FOLDER   has the board, and for each rank the pipes RANK.in and RANK.out
 *       CORES    such as 0,1; or - to stay unpinned
 *       once     to leave after a first small all-reduce
 *
 * The commands:
 *   window COLLECTIVE PLACEMENT DTYPE BYTES MILLISECONDS CHECK    measures
 *   line                                                          a cache line's round trip
 *   late MILLISECONDS    rank 0 comes late to an all-reduce; what does waiting cost the others?
 *   quit
 */
#define _GNU_SOURCE
#include "adaptor.h"
#include "board.h"
#include "values.h"
#include "window.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const COLLECTIVE_NAMES[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast"};
static const char *const PLACEMENT_NAMES[] = {"out", "in", "library_in", "library"};
static const char *const DTYPE_NAMES[] = {"f32", "f16", "bf16", "f8e4m3"};

static int number_of(const char *const names[], int count, const char *name) {
  for (int number = 0; number < count; number++)
    if (strcmp(names[number], name) == 0) return number;
  return -1;
}

/* What the first of these variables says; launchers differ. */
static int environment(const char *const names[], int count, int otherwise) {
  for (int at = 0; at < count; at++) {
    const char *text = getenv(names[at]);
    if (text != NULL) return atoi(text);
  }
  return otherwise;
}

/* Pins this rank to its core; returns how many cores there are. */
static int pin(const char *cores, int rank, int size) {
  int list[CPU_SETSIZE], count = 0;
  for (const char *at = cores; *at != '\0' && count < CPU_SETSIZE;) {
    char *end;
    list[count++] = (int)strtol(at, &end, 10);
    at = *end == ',' ? end + 1 : end + strlen(end);
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(list[rank * count / size], &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) perror("driver: cannot pin");
  return count;
}

/* Kilobytes of this process: Pss of anonymous and of shared memory. */
static long footprint(void) {
  char line[256];
  long total = 0, amount;
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  if (file == NULL) return -1;
  while (fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "Pss_Anon: %ld", &amount) == 1 || sscanf(line, "Pss_Shmem: %ld", &amount) == 1)
      total += amount;
  fclose(file);
  return total;
}

static void answer_error(FILE *out, const char *text) {
  fputs("{\"error\": \"", out);
  for (; *text != '\0'; text++)
    fputc(*text == '"' || *text == '\\' || (unsigned char)*text < ' ' ? ' ' : *text, out);
  fputs("\"}\n", out);
}

static void command_window(const struct job *job, const char *line, FILE *out) {
  char collective[32], placement[32], dtype[32];
  double milliseconds;
  int check;
  struct window window;
  if (sscanf(line, "window %31s %31s %31s %zu %lf %d", collective, placement, dtype, &window.bytes,
             &milliseconds, &check) != 6) {
    answer_error(out, "not a window");
    return;
  }
  int numbers[] = {number_of(COLLECTIVE_NAMES, COLLECTIVES, collective),
                   number_of(PLACEMENT_NAMES, PLACEMENTS, placement), number_of(DTYPE_NAMES, DTYPES, dtype)};
  if (numbers[0] < 0 || numbers[1] < 0 || numbers[2] < 0) {
    answer_error(out, "no such window");
    return;
  }
  window.collective = (enum collective)numbers[0];
  window.placement = (enum placement)numbers[1];
  window.dtype = (enum dtype)numbers[2];
  window.seconds = milliseconds * 1e-3;
  window.check = check != 0;
  struct times times = {0};
  const char *error = window_measure(job, &window, &times);
  if (error != NULL) {
    atomic_store(&job->board->failed, true);
    answer_error(out, error);
    return;
  }
  fprintf(out, "{\"loop\": %.12g, \"bare\": %.12g, \"repeats\": %lu, \"batches\": %u}\n", times.loop,
          times.bare, times.repeats, times.batches);
}

static double cpu_seconds(void) {
  struct timespec spent;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  return (double)spent.tv_sec + 1e-9 * (double)spent.tv_nsec;
}

static const char *small_all_reduce(void) {
  float input[2] = {1, 2}, output[2];
  struct call call = {input, output, 2, F32};
  return adaptor.operations[ALL_REDUCE](&call) == 0 ? NULL : adaptor.error();
}

static void command_late(const struct job *job, const char *line, FILE *out) {
  long milliseconds = strtol(line + strlen("late"), NULL, 10);
  const char *error = small_all_reduce();
  if (error == NULL && !board_barrier(job->board, job->size, job->crowded)) error = BYSTANDER;
  struct timespec delay = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  if (job->rank == 0) nanosleep(&delay, NULL);
  double before = cpu_seconds();
  if (error == NULL) error = small_all_reduce();
  double spent = cpu_seconds() - before;
  if (error != NULL)
    answer_error(out, error);
  else
    fprintf(out, "{\"cpu\": %.9g}\n", spent);
}

static void serve(const struct job *job, FILE *in, FILE *out) {
  char line[512];
  while (fgets(line, sizeof line, in) != NULL && strncmp(line, "quit", 4) != 0) {
    if (strncmp(line, "window ", 7) == 0)
      command_window(job, line, out);
    else if (strncmp(line, "late ", 5) == 0)
      command_late(job, line, out);
    else if (strncmp(line, "line", 4) == 0)
      fprintf(out, "{\"line\": %.6g}\n", board_line(job->board, job->rank, 0, job->size - 1));
    else
      answer_error(out, "no such command");
    fflush(out);
  }
}

static int fail(const char *what, const char *why) {
  fprintf(stderr, "driver: %s: %s\n", what, why);
  return EXIT_FAILURE;
}

static int leave(void) { return adaptor.finish() == 0 ? EXIT_SUCCESS : fail("finish", adaptor.error()); }

/* The two pipes to whoever commands. */
static FILE *channel(const char *folder, int rank, const char *end, const char *mode) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%d.%s", folder, rank, end);
  return fopen(path, mode);
}

int main(int argc, char **argv) {
  static const char *const RANK[] = {"VERSUS_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "KOLO_RANK"};
  static const char *const SIZE[] = {"VERSUS_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "KOLO_SIZE"};
  if (argc != 3 && argc != 4) return fail("usage", "driver FOLDER CORES [once]");
  struct job job = {.rank = environment(RANK, 4, 0), .size = environment(SIZE, 4, 1)};
  if (job.size > MOST_RANKS) return fail("too many ranks", "the board has room for 16");
  bool pinned = strcmp(argv[2], "-") != 0;
  long cores = pinned ? pin(argv[2], job.rank, job.size) : sysconf(_SC_NPROCESSORS_ONLN);
  job.crowded = job.size > cores;
  job.board = board_open(argv[1]);
  if (job.board == NULL) return fail(argv[1], strerror(errno));
  long before = footprint();
  if (adaptor.start(job.rank, job.size, job.board->scratch, SCRATCH) != 0)
    return fail("cannot join the job", adaptor.error());
  const char *error = small_all_reduce();
  if (error != NULL) return fail("the first all-reduce", error);
  if (argc == 4) return leave();
  if (!board_barrier(job.board, job.size, job.crowded)) return EXIT_FAILURE;
  long after = footprint();
  FILE *in = channel(argv[1], job.rank, "in", "r"), *out = channel(argv[1], job.rank, "out", "w");
  if (in == NULL || out == NULL) return fail(argv[1], strerror(errno));
  fprintf(out, "{\"pid\": %d, \"version\": \"%s\", \"footprint_kib\": %ld}\n", (int)getpid(),
          adaptor.version(), after - before);
  fflush(out);
  serve(&job, in, out);
  return leave();
}
