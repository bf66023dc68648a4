/* No library, but a yardstick for TCP: two ranks send each other their whole inputs over one connection, as many
 * bytes each way as any all-reduce of two ranks must. Adding them up is not counted (`uncounted`).
 *
 * VERSUS_EXCHANGE is how many KiB one call of send or recv is asked to move. The connection is set up as kolo sets
 * up its own. */
#include "adaptor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct meeting {
  _Atomic int port; /* of rank 0's listener, once it listens */
};

static int connection = -1;
static size_t most;
/* The other rank's input. */
static char *theirs;
static size_t theirs_bytes;

static int loopback(int port, struct sockaddr_in *address) {
  memset(address, 0, sizeof *address);
  address->sin_family = AF_INET;
  address->sin_port = htons((uint16_t)port);
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static bool listen_for(struct meeting *meeting) {
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  int listener = loopback(0, &address);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &length) != 0)
    return false;
  atomic_store(&meeting->port, ntohs(address.sin_port));
  connection = accept(listener, NULL, NULL);
  close(listener);
  return connection >= 0;
}

static bool dial(struct meeting *meeting) {
  struct sockaddr_in address;
  int port;
  while ((port = atomic_load(&meeting->port)) == 0) sched_yield();
  connection = loopback(port, &address);
  return connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof address) == 0;
}

static int start(int rank, int size, void *scratch, size_t scratch_bytes) {
  const char *kib = getenv("VERSUS_EXCHANGE");
  if (kib == NULL || size != 2 || scratch_bytes < sizeof(struct meeting)) return 1;
  most = (size_t)atoi(kib) << 10;
  if (!(rank == 0 ? listen_for(scratch) : dial(scratch))) return 1;
  int yes = 1;
  char control[16] = "";
  socklen_t length = sizeof control - 1;
  if (setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) != 0 ||
      getsockopt(connection, IPPROTO_TCP, TCP_CONGESTION, control, &length) != 0)
    return 1;
  /* What sends by the clock is slower here; see src/transport/tcp/tune.rs. */
  if (strncmp(control, "bbr", 3) == 0 &&
      setsockopt(connection, IPPROTO_TCP, TCP_CONGESTION, "cubic", strlen("cubic")) != 0)
    setsockopt(connection, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno"));
  return 0;
}

static int finish(void) {
  free(theirs);
  return close(connection);
}

static const char *error(void) { return strerror(errno); }
static const char *version(void) { return "one connection"; }

static bool waits(ssize_t count) { return count < 0 && (errno == EAGAIN || errno == EINTR); }

static bool exchange(const char *out, char *in, size_t bytes) {
  size_t sent = 0, come = 0;
  while (sent < bytes || come < bytes) {
    if (sent < bytes) {
      size_t ask = bytes - sent < most ? bytes - sent : most;
      ssize_t count = send(connection, out + sent, ask, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (count < 0 && !waits(count)) return false;
      if (count > 0) sent += (size_t)count;
    }
    if (come < bytes) {
      size_t ask = bytes - come < most ? bytes - come : most;
      ssize_t count = recv(connection, in + come, ask, MSG_DONTWAIT);
      if (count == 0 || (count < 0 && !waits(count))) return false;
      if (count > 0) come += (size_t)count;
    }
  }
  return true;
}

static int add(const struct call *call) {
  const float *mine = call->input, *other = (const float *)theirs;
  float *sum = call->output;
  for (size_t at = 0; at < call->count; at++) sum[at] = mine[at] + other[at];
  return 0;
}

static bool make_room(const struct call *call) {
  size_t bytes = call->count * sizeof(float);
  if (bytes > theirs_bytes) {
    free(theirs);
    theirs_bytes = bytes;
    theirs = calloc(1, bytes);
  }
  return theirs != NULL;
}

static int all_reduce(const struct call *call) {
  if (!make_room(call) || !exchange(call->input, theirs, call->count * sizeof(float))) return 1;
  return add(call);
}

static int uncounted(const struct call *call) { return make_room(call) ? add(call) : 1; }

const struct adaptor adaptor = {
    .start = start,
    .finish = finish,
    .error = error,
    .version = version,
    .operations = {all_reduce, NULL, NULL, NULL},
    .uncounted = uncounted,
    .allocate = NULL,
    .release = NULL,
};
