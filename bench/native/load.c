// The load generator: clients of 127.0.0.1 in one thread that waits in epoll, each with one request after the other.
//
//   load [-H HEADER]... [-w] PORT PATH PROTOCOL CONNECTIONS REQUESTS RAMP_MS SECONDS BODY...
//
// PROTOCOL (responses, messages, chat) says which events are deltas and which one ends a stream; -w asks for whole
// answers. The first requests are spread over RAMP_MS; the files BODY are sent in turn. After REQUESTS answers or SECONDS
// it prints one line of JSON: counts, seconds, and in microseconds the time to the first delta (`first`), a delta's way
// from its mark at the scripted server to here (`delay`) and the same without the first 10 deltas of each stream
// (`steady`). The exit code is 1 when an answer failed or is missing; `error` shows the first one. Linux only.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define WARM 10
#define LARGEST_DELTA 4096
#define MOST_EVENTS 256

enum state { IDLE, SENDING, HEAD, BODY };
enum framing { CLOSED, SIZED, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER };

struct text { char *bytes; size_t size, room; };
struct series { uint32_t *values; size_t count, room; };

struct connection {
  int fd, status, failed, ended;
  enum state state;
  enum framing framing;
  struct text *request, line;
  size_t sent, left;
  uint64_t starts, asked;
  unsigned deltas;
  uint32_t watched;
};

static const char *const DELTAS[][4] = {
  {".delta\"", 0},
  {"text_delta\"", "input_json_delta\"", "thinking_delta\"", 0},
  {"\"content\":\"", "\"reasoning_content\":\"", "\"arguments\":\"", 0},
};
static const char *const ENDS[][3] = {{"\"response.completed\"", 0}, {"message_stop", 0}, {"[DONE]", 0}};
static const char *const FAILURES[] = {"\"response.failed\"", "\"type\":\"error\"", "\"type\": \"error\"", 0};

static struct series first, delay, steady;
static unsigned long long wanted, asked, answered, failed, deltas, marks, received;
static struct text *requests;
static int request_count, protocol, whole, port, poller;
static char error[300];

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void append(struct text *text, const char *bytes, size_t size) {
  if (text->size + size + 1 > text->room) {
    text->room = (text->room + size) * 2 + 4096;
    text->bytes = realloc(text->bytes, text->room);
  }
  memcpy(text->bytes + text->size, bytes, size);
  text->size += size;
  text->bytes[text->size] = 0;
}

static void add(struct series *s, uint64_t ns) {
  if (s->count == s->room) s->values = realloc(s->values, sizeof *s->values * (s->room = s->room * 2 + 1024));
  s->values[s->count++] = ns / 100 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 100);
}

static int holds(const char *bytes, size_t size, const char *const *words) {
  for (; *words; words++) {
    const char *found = memmem(bytes, size, *words, strlen(*words));
    // A chunk of chat says `"content":""` where it has none.
    if (found && (protocol != 2 || found[strlen(*words)] != '"')) return 1;
  }
  return 0;
}

static void explain(const char *bytes, size_t size) {
  if (!error[0]) snprintf(error, sizeof error, "%.*s", (int)(size < sizeof error ? size : sizeof error), bytes);
}

// ---- what an answer says

static void measure(struct connection *c, const char *line, size_t size, uint64_t now) {
  const char *end = line + size;
  if (!c->deltas++) add(&first, now - c->asked);
  deltas++;
  while ((line = memchr(line, '@', (size_t)(end - line))) && end - line > 16) {
    char digits[17], *rest;
    memcpy(digits, ++line, 16);
    digits[16] = 0;
    uint64_t sent = strtoull(digits, &rest, 16);
    if (rest != digits + 16 || sent > now) continue;
    marks++;
    add(&delay, now - sent);
    if (c->deltas > WARM) add(&steady, now - sent);
  }
}

static void event(struct connection *c, const char *line, size_t size, uint64_t now) {
  if (size < 6 || memcmp(line, "data:", 5)) return;
  if (size < LARGEST_DELTA && holds(line, size, DELTAS[protocol])) measure(c, line, size, now);
  else if (memmem(line, size, ENDS[protocol][0], strlen(ENDS[protocol][0]))) c->ended = 1;
  else if (size < LARGEST_DELTA && holds(line, size, FAILURES)) { c->failed = 1; explain(line, size); }
}

static void payload(struct connection *c, const char *bytes, size_t size, uint64_t now) {
  if (c->status != 200) explain(bytes, size);
  if (c->status != 200 || whole) return;
  for (const char *end; size && (end = memchr(bytes, '\n', size)); size -= (size_t)(end + 1 - bytes), bytes = end + 1) {
    if (!c->line.size) { event(c, bytes, (size_t)(end - bytes), now); continue; }
    append(&c->line, bytes, (size_t)(end - bytes));
    event(c, c->line.bytes, c->line.size, now);
    c->line.size = 0;
  }
  if (size) append(&c->line, bytes, size);
}

// ---- HTTP: the bytes of a body out of their framing. 1 at its end.

static int body(struct connection *c, const char *bytes, size_t size, uint64_t now) {
  while (size) {
    switch (c->framing) {
    case CLOSED: case SIZED: case CHUNK: {
      size_t taken = c->framing != CLOSED && c->left < size ? c->left : size;
      payload(c, bytes, taken, now);
      bytes += taken; size -= taken; c->left -= taken;
      if (c->framing == SIZED && !c->left) return 1;
      if (c->framing == CHUNK && !c->left) c->framing = CHUNK_END;
      break;
    }
    case CHUNK_SIZE: {
      char digit = *bytes++; size--;
      if (digit == '\n') c->framing = c->left ? CHUNK : TRAILER;
      else if (digit != '\r') c->left = c->left * 16 + (size_t)(digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
      break;
    }
    case CHUNK_END: if (*bytes++ == '\n') c->framing = CHUNK_SIZE; size--; break;
    case TRAILER: if (*bytes++ == '\n') return 1; size--; break;
    }
  }
  return 0;
}

static int head(struct connection *c, const char *bytes, size_t size, uint64_t now) {
  append(&c->line, bytes, size);
  char *end = memmem(c->line.bytes, c->line.size, "\r\n\r\n", 4), *length;
  if (!end) return 0;
  end[2] = 0;
  c->status = atoi(c->line.bytes + 9);
  length = strcasestr(c->line.bytes, "\r\ncontent-length:");
  c->framing = strcasestr(c->line.bytes, "\r\ntransfer-encoding: chunked") ? CHUNK_SIZE : length ? SIZED : CLOSED;
  c->left = c->framing == SIZED ? strtoul(length + 17, 0, 10) : 0;
  c->state = BODY;
  size_t rest = c->line.size - (size_t)(end + 4 - c->line.bytes);
  c->line.size = 0;  // what is left of the read lies at its end
  if (c->framing == SIZED && !c->left) return 1;
  return body(c, bytes + size - rest, rest, now);
}

// ---- connections

static void watch(struct connection *c, int operation, uint32_t events) {
  if (operation == EPOLL_CTL_MOD && events == c->watched) return;
  c->watched = events;
  struct epoll_event event = {.events = events, .data.ptr = c};
  epoll_ctl(poller, operation, c->fd, &event);
}

static void push(struct connection *c) {
  ssize_t sent = send(c->fd, c->request->bytes + c->sent, c->request->size - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent > 0) c->sent += (size_t)sent;
  int complete = c->sent == c->request->size;
  if (complete) c->state = HEAD;
  watch(c, EPOLL_CTL_MOD, complete ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

static void ask(struct connection *c) {
  c->state = IDLE;
  if (asked == wanted) return;
  c->request = &requests[asked++ % (unsigned)request_count];
  c->state = SENDING;
  c->sent = c->line.size = c->deltas = 0;
  c->status = c->failed = c->ended = 0;
  c->asked = now_ns();
  if (c->fd >= 0) { push(c); return; }
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  connect(c->fd, (void *)&address, sizeof address);
  watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void settle(struct connection *c, int complete) {
  int good = complete && c->status == 200 && !c->failed && (whole || c->ended);
  if (good) answered++;
  else failed++;
  char text[120];
  if (!good) explain(text, (size_t)snprintf(text, sizeof text, "status %d, %s, %s, %u deltas", c->status,
                     complete ? "whole" : "cut", c->ended ? "ended" : "without its last event", c->deltas));
}

static void receive(struct connection *c) {
  static char bytes[262144];
  ssize_t size = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) {
    if (c->state != IDLE) settle(c, c->state == BODY && c->framing == CLOSED);
    close(c->fd);
    c->fd = -1;
    ask(c);
    return;
  }
  received += (unsigned long long)size;
  uint64_t now = now_ns();
  int complete = c->state == BODY ? body(c, bytes, (size_t)size, now) : head(c, bytes, (size_t)size, now);
  if (complete) { settle(c, 1); ask(c); }
}

// ---- the run

static int compare(const void *a, const void *b) {
  uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
  return left < right ? -1 : left > right;
}

static void show(const char *name, struct series *s) {
  qsort(s->values, s->count, sizeof *s->values, compare);
#define AT(share) (s->count ? s->values[(size_t)((double)(s->count - 1) * (share))] / 10.0 : 0.0)
  printf(",\"%s\":{\"count\":%zu,\"p50\":%.1f,\"p99\":%.1f,\"most\":%.1f}", name, s->count, AT(.5), AT(.99), AT(1.0));
}

static void report(double seconds) {
  printf("{\"answered\":%llu,\"failed\":%llu,\"missing\":%llu,\"deltas\":%llu,\"marks\":%llu,\"bytes\":%llu,"
         "\"seconds\":%.6f", answered, failed, wanted - answered - failed, deltas, marks, received, seconds);
  show("first", &first); show("delay", &delay); show("steady", &steady);
  for (char *s = error; *s; s++)
    if (*s == '"' || *s == '\\' || (unsigned char)*s < 32 || (unsigned char)*s > 126) *s = '\'';
  printf(",\"error\":\"%s\"}\n", error);
}

static void load(const char *path, const char *headers, char **files) {
  requests = calloc((size_t)request_count, sizeof *requests);
  for (int i = 0; i < request_count; i++) {
    FILE *file = fopen(files[i], "rb");
    if (!file) { perror(files[i]); exit(2); }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(size + 1), start[8192];
    if (fread(bytes, 1, size, file) != size) exit(2);
    append(&requests[i], start, (size_t)snprintf(start, sizeof start, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n"
           "content-type: application/json\r\n%scontent-length: %zu\r\n\r\n", path, port, headers, size));
    append(&requests[i], bytes, size);
    free(bytes);
    fclose(file);
  }
}

static double run(int count, uint64_t ramp, uint64_t seconds) {
  struct epoll_event events[MOST_EVENTS];
  struct connection *all = calloc((size_t)count, sizeof *all);
  uint64_t begun = now_ns(), now = begun;
  int started = 0;
  for (int i = 0; i < count; i++) all[i].fd = -1, all[i].starts = begun + ramp * 1000000u * (uint64_t)i / (uint64_t)count;
  poller = epoll_create1(0);
  while (answered + failed < wanted && now - begun < seconds * 1000000000u) {
    while (started < count && all[started].starts <= now) ask(&all[started++]);
    int ready = epoll_wait(poller, events, MOST_EVENTS, started < count ? 1 : 100);
    for (int i = 0; i < ready; i++) {
      struct connection *c = events[i].data.ptr;
      if (events[i].events & EPOLLOUT && c->state == SENDING) push(c);
      if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
    }
    now = now_ns();
  }
  return (double)(now - begun) / 1e9;
}

int main(int count, char **words) {
  char headers[4096] = "";
  for (int option; (option = getopt(count, words, "H:w")) != -1;) {
    if (option == 'w') whole = 1;
    else if (option == 'H') { strncat(headers, optarg, 1000); strcat(headers, "\r\n"); }
    else return 2;
  }
  char **rest = words + optind;
  request_count = count - optind - 7;
  if (request_count < 1) { fprintf(stderr, "load: see the top of load.c\n"); return 2; }
  port = atoi(rest[0]);
  protocol = !strcmp(rest[2], "responses") ? 0 : !strcmp(rest[2], "messages") ? 1 : 2;
  wanted = strtoull(rest[4], 0, 10);
  load(rest[1], headers, rest + 7);
  report(run(atoi(rest[3]), strtoull(rest[5], 0, 10), strtoull(rest[6], 0, 10)));
  return answered < wanted;
}
