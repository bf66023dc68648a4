/* A bare ping-pong over libfabric: two processes, one endpoint each, tagged messages, nothing around them.
 *
 *   raw PROVIDER BYTES ROUNDS     prints nanoseconds one way: the median of batches
 *
 * It does what kolo's link is compared with: messages that fit are injected, others sent and waited for, receives are
 * posted before they are needed, and both sides look without a pause.
 */
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_tagged.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 15, TAG = 7 };

#define CHECK(call)                                                                     \
  do {                                                                                  \
    long outcome = (call);                                                              \
    if (outcome < 0) {                                                                  \
      fprintf(stderr, "%s: %s\n", #call, fi_strerror((int)-outcome));                   \
      exit(1);                                                                          \
    }                                                                                   \
  } while (0)

static struct fid_ep *endpoint;
static struct fid_cq *queue;
static fi_addr_t peer;
static struct fi_context2 contexts[2];
static int sent, received;
static size_t injects;

static void look(void) {
  struct fi_cq_msg_entry entries[4];
  long count = fi_cq_read(queue, entries, 4);
  if (count == -FI_EAGAIN) return;
  CHECK(count);
  for (long i = 0; i < count; i++) {
    if (entries[i].op_context == &contexts[0]) sent++;
    else received++;
  }
}

static void expect(char *buffer, size_t bytes) {
  long outcome;
  while ((outcome = fi_trecv(endpoint, buffer, bytes, NULL, FI_ADDR_UNSPEC, TAG, 0, &contexts[1])) == -FI_EAGAIN) look();
  CHECK(outcome);
}

static void send_one(const char *buffer, size_t bytes) {
  long outcome;
  if (bytes <= injects) {
    while ((outcome = fi_tinject(endpoint, buffer, bytes, peer, TAG)) == -FI_EAGAIN) look();
    CHECK(outcome);
    return;
  }
  int before = sent;
  while ((outcome = fi_tsend(endpoint, buffer, bytes, NULL, peer, TAG, &contexts[0])) == -FI_EAGAIN) look();
  CHECK(outcome);
  while (sent == before) look();
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  size_t bytes = strtoul(argv[2], NULL, 10);
  int rounds = atoi(argv[3]), pair[2];
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  pid_t child = fork();
  int leads = child != 0;
  if (!leads) prctl(PR_SET_PDEATHSIG, SIGKILL);
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(leads ? 0 : 1, &core);
  sched_setaffinity(0, sizeof core, &core);

  struct fi_info *hints = fi_allocinfo(), *info;
  hints->caps = FI_TAGGED;
  hints->mode = FI_CONTEXT | FI_CONTEXT2;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->domain_attr->control_progress = hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
  hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  hints->fabric_attr->prov_name = strdup(argv[1]);
  const char *node = strncmp(argv[1], "tcp", 3) ? NULL : "127.0.0.1";
  CHECK(fi_getinfo(FI_VERSION(1, 17), node, NULL, node ? FI_SOURCE : 0, hints, &info));
  injects = info->tx_attr->inject_size;

  struct fid_fabric *fabric;
  struct fid_domain *domain;
  struct fid_av *addresses;
  struct fi_cq_attr queue_attr = {.format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_NONE};
  struct fi_av_attr av_attr = {.type = FI_AV_MAP};
  CHECK(fi_fabric(info->fabric_attr, &fabric, NULL));
  CHECK(fi_domain(fabric, info, &domain, NULL));
  CHECK(fi_cq_open(domain, &queue_attr, &queue, NULL));
  CHECK(fi_av_open(domain, &av_attr, &addresses, NULL));
  CHECK(fi_endpoint(domain, info, &endpoint, NULL));
  CHECK(fi_ep_bind(endpoint, &addresses->fid, 0));
  CHECK(fi_ep_bind(endpoint, &queue->fid, FI_SEND | FI_RECV));
  CHECK(fi_enable(endpoint));

  char mine[512] = {0}, theirs[512] = {0};
  size_t len = sizeof mine;
  CHECK(fi_getname(&endpoint->fid, mine, &len));
  if (write(pair[!leads], mine, sizeof mine) != sizeof mine || read(pair[!leads], theirs, sizeof theirs) != sizeof theirs)
    return 1;
  if (fi_av_insert(addresses, theirs, 1, &peer, 0, NULL) != 1) return 1;

  char *out = aligned_alloc(4096, (bytes + 4096) & ~4095ul), *in = aligned_alloc(4096, (bytes + 4096) & ~4095ul);
  memset(out, 1, bytes);
  memset(in, 2, bytes);
  double times[BATCHES];
  expect(in, bytes);
  /* The next one may come while this side still waits to have sent. */
  int wanted = 0;
  for (int batch = -2; batch < BATCHES; batch++) {
    double begun = now();
    for (int round = 0; round < rounds; round++) {
      wanted++;
      if (leads) send_one(out, bytes);
      while (received < wanted) look();
      expect(in, bytes);
      if (!leads) send_one(out, bytes);
    }
    if (batch >= 0) times[batch] = (now() - begun) / rounds / 2;
  }
  char done = 0;
  if (!leads) {
    /* What was sent last may need this process to go on. */
    while (recv(pair[1], &done, 1, MSG_DONTWAIT) < 1) look();
    return 0;
  }
  if (write(pair[0], &done, 1) != 1) return 1;
  qsort(times, BATCHES, sizeof *times, by_value);
  printf("%.0f\n", times[BATCHES / 2]);
  /* The other one's last message may need this process to go on. */
  while (waitpid(child, NULL, WNOHANG) == 0) look();
  return 0;
}
