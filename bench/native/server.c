// The scripted model server: chat completions whose bytes are made once, sent by one thread that waits in epoll.
//
//   server MODEL...     prints "ready on http://127.0.0.1:PORT" and serves until it is stopped
//
// The name of the model says what is played, KIND-DELTAS-GAP: `text-500-0` are 500 deltas of text as fast as the socket
// takes them, `tools-200-20000` are 200 fragments of tool calls 20 ms apart, `reasoning-...` is reasoning with text at
// its end, and each chunk of `counting-...` has the usage so far. The names given as arguments are what GET /v1/models lists. Each delta is an event of 200-260 bytes in an
// HTTP chunk of its own, as servers on uvicorn write them. Where there is a gap, a delta reads "@" and the time it was
// sent, as 16 hexadecimal digits of CLOCK_MONOTONIC in nanoseconds, so that a client on this machine knows how long it
// took. A request must have a content-length. Loopback only; Linux only.
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

#define MARK "@0000000000000000"
#define CALLS 2
#define LARGEST_WRITE 262144
#define MOST_EVENTS 256

static const char *WORDS[] = {" the", " court", " =>", " a", " letter[0]", "\\n", " \\\"and", " answers\\\"", " in",
                              " d\xc3\xa9tente", ",", " < self", " def", " value", "(self", ")."};
static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                           "transfer-encoding: chunked\r\n\r\n";
static const char USAGE[] = "{\"prompt_tokens\":1234,\"total_tokens\":%d,\"completion_tokens\":%d}";

struct text { char *bytes; size_t size, room; };

// One script as it goes out: frame i is bytes[at[i]] to bytes[at[i + 1]], with its mark at mark[i] within it, or 0.
struct script {
  char model[64], kind[16];
  int deltas, gap_us, usage, frames;
  struct text text;
  size_t *at, *mark;
  struct script *next;
};

struct connection {
  int fd, blocked;              // blocked: the socket took no more
  int place;                    // its index among the timers and 1, or 0
  struct text input;
  const char *rest; size_t left;  // what is being sent
  char *owned;                    // what is sent, where it is freed afterwards
  struct script *playing; int frame;
  uint64_t due;
};

static struct script *scripts;
static int poller, listener;
static char models[65536];
static struct connection **timers; static int timer_count, timer_room;

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

// ---- scripts

static void frame(struct script *s, const char *payload) {
  char size[32];
  int length = snprintf(size, sizeof size, "%zx\r\ndata: ", strlen(payload) + 8);
  const char *mark = s->gap_us ? strstr(payload, MARK) : 0;
  s->at = realloc(s->at, sizeof *s->at * (size_t)(s->frames + 2));
  s->mark = realloc(s->mark, sizeof *s->mark * (size_t)(s->frames + 2));
  s->at[s->frames] = s->frames ? s->text.size : 0;  // the head goes out with the first frame
  s->mark[s->frames] = mark ? (size_t)length + (size_t)(mark - payload) + 1 : 0;
  s->frames++;
  append(&s->text, size, (size_t)length);
  append(&s->text, payload, strlen(payload));
  append(&s->text, "\n\n\r\n", 4);
}

static void chunk(struct script *s, const char *choices, const char *usage) {
  char payload[2048];
  snprintf(payload, sizeof payload, "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion"
           ".chunk\",\"created\":1790000000,\"model\":\"%s\",\"choices\":[%s],\"usage\":%s}", s->model, choices, usage);
  frame(s, payload);
}

static void delta(struct script *s, const char *delta, const char *finish) {
  char choice[1024], usage[128] = "null";
  snprintf(choice, sizeof choice, "{\"index\":0,\"delta\":%s,\"logprobs\":null,\"finish_reason\":%s}", delta, finish);
  if (!strcmp(s->kind, "counting")) snprintf(usage, sizeof usage, USAGE, 1234 + s->frames, s->frames);
  chunk(s, choice, usage);
}

static void words(struct script *s, const char *member, int count, int from) {
  char payload[256];
  for (int i = 0; i < count; i++) {
    const char *word = s->gap_us ? MARK : WORDS[(from + i) % 16];
    snprintf(payload, sizeof payload, "{\"%s\":\"%s\"}", member, word);
    delta(s, payload, "null");
  }
}

static void calls(struct script *s) {
  char payload[512];
  for (int call = 0; call < CALLS; call++) {
    int count = s->deltas / CALLS;
    snprintf(payload, sizeof payload, "{\"tool_calls\":[{\"index\":%d,\"id\":\"call_%024d\",\"type\":\"function\","
             "\"function\":{\"name\":\"shell\",\"arguments\":\"\"}}]}", call, call);
    delta(s, payload, "null");
    for (int i = 0; i < count; i++) {
      const char *word = s->gap_us ? MARK : WORDS[i % 5];
      snprintf(payload, sizeof payload, "{\"tool_calls\":[{\"index\":%d,\"function\":{\"arguments\":\"%s\"}}]}", call,
               i == 0 ? "{\\\"command\\\": \\\"" : i == count - 1 ? "\\\"}" : word);
      delta(s, payload, "null");
    }
  }
}

static struct script *script(const char *model, int usage) {
  for (struct script *s = scripts; s; s = s->next)
    if (s->usage == usage && !strcmp(s->model, model)) return s;
  struct script *s = calloc(1, sizeof *s);
  if (sscanf(model, "%15[a-z]-%d-%d", s->kind, &s->deltas, &s->gap_us) != 3) { free(s); return 0; }
  snprintf(s->model, sizeof s->model, "%s", model);
  int tools = !strcmp(s->kind, "tools"), thoughts = strcmp(s->kind, "reasoning") ? 0 : s->deltas * 3 / 4;
  append(&s->text, HEAD, sizeof HEAD - 1);
  delta(s, "{\"role\":\"assistant\",\"content\":\"\"}", "null");
  words(s, "reasoning_content", thoughts, 0);
  if (tools) calls(s);
  else words(s, "content", s->deltas - thoughts, thoughts);
  delta(s, "{}", tools ? "\"tool_calls\"" : "\"stop\"");
  int last = s->frames - 1;  // all that follows the last delta goes out together
  char counts[128];
  snprintf(counts, sizeof counts, USAGE, 1234 + s->deltas, s->deltas);
  if (usage) chunk(s, "", counts);
  append(&s->text, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
  s->frames = last + 1;
  s->at[s->frames] = s->text.size;
  s->usage = usage;
  s->next = scripts;
  return scripts = s;
}

// ---- timers: a binary heap, the next to come first

static void put(int place, struct connection *c) { timers[place] = c; c->place = place + 1; }

static void settle(int place, struct connection *c) {
  while (place && timers[(place - 1) / 2]->due > c->due) { put(place, timers[(place - 1) / 2]); place = (place - 1) / 2; }
  for (int child; (child = place * 2 + 1) < timer_count; place = child) {
    if (child + 1 < timer_count && timers[child + 1]->due < timers[child]->due) child++;
    if (timers[child]->due >= c->due) break;
    put(place, timers[child]);
  }
  put(place, c);
}

static void forget(struct connection *c) {
  if (!c->place) return;
  int place = c->place - 1;
  struct connection *moved = timers[--timer_count];
  c->place = 0;
  if (moved != c) settle(place, moved);
}

static void wake_at(struct connection *c, uint64_t due) {
  c->due = due;
  if (c->place) { settle(c->place - 1, c); return; }
  if (timer_count == timer_room) timers = realloc(timers, sizeof *timers * (size_t)(timer_room = timer_room * 2 + 64));
  settle(timer_count++, c);
}

// ---- connections

static void watch(struct connection *c, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  epoll_ctl(poller, operation, c->fd, &event);
}

static void block(struct connection *c, int blocked) {
  if (c->blocked != blocked) watch(c, EPOLL_CTL_MOD, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
  c->blocked = blocked;
}

static void drop(struct connection *c) {
  forget(c);
  close(c->fd);
  free(c->input.bytes); free(c->owned); free(c);
}

static int take(struct connection *c);

// Sends what is there; goes on with the next request after the end. -1 when the connection is gone and freed.
static int push(struct connection *c) {
  while (c->left) {
    size_t size = c->left < LARGEST_WRITE ? c->left : LARGEST_WRITE;
    ssize_t sent = send(c->fd, c->rest, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) { drop(c); return -1; }
    if (sent < 0 || (size_t)sent < size) {
      if (sent > 0) { c->rest += sent; c->left -= (size_t)sent; }
      block(c, 1);
      return 0;
    }
    c->rest += sent; c->left -= (size_t)sent;
  }
  block(c, 0);
  free(c->owned); c->owned = 0;
  if (c->playing && c->playing->gap_us && c->frame < c->playing->frames) return 0;
  c->playing = 0;
  return take(c);
}

static int tick(struct connection *c) {
  struct script *s = c->playing;
  if (c->left) { wake_at(c, now_ns() + 1000000); return 0; }  // the reader is slow: try again later
  size_t size = s->at[c->frame + 1] - s->at[c->frame];
  c->rest = s->text.bytes + s->at[c->frame];
  if (s->mark[c->frame]) {
    char digits[17];
    c->owned = malloc(size);
    memcpy(c->owned, c->rest, size);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)now_ns());
    memcpy(c->owned + s->mark[c->frame], digits, 16);
    c->rest = c->owned;
  }
  c->left = size;
  if (++c->frame < s->frames) wake_at(c, c->due + (uint64_t)s->gap_us * 1000u);
  else forget(c);
  return push(c);
}

static int answer(struct connection *c, int status, const char *body, size_t size) {
  struct text text = {0};
  char head[160];
  append(&text, head, (size_t)snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n"
         "content-length: %zu\r\n\r\n", status, status == 200 ? "OK" : "Refused", size));
  append(&text, body, size);
  c->rest = c->owned = text.bytes;
  c->left = text.size;
  return push(c);
}

static int whole(struct connection *c, struct script *s) {
  struct text text = {0};
  char head[512], tail[256];
  append(&text, head, (size_t)snprintf(head, sizeof head, "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":"
         "\"chat.completion\",\"created\":1790000000,\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
         "\"assistant\",\"content\":\"", s->model));
  for (int i = 0; i < s->deltas; i++) append(&text, WORDS[i % 16], strlen(WORDS[i % 16]));
  append(&text, tail, (size_t)snprintf(tail, sizeof tail, "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":"));
  append(&text, tail, (size_t)snprintf(tail, sizeof tail, USAGE, 1234 + s->deltas, s->deltas));
  append(&text, "}", 1);
  int alive = answer(c, 200, text.bytes, text.size);
  free(text.bytes);
  return alive;
}

// `"name":` with or without a space after it, then the value.
static const char *member(const char *body, size_t size, const char *name, const char *value) {
  char wanted[64];
  for (int space = 0; space < 2; space++) {
    int length = snprintf(wanted, sizeof wanted, "\"%s\":%s%s", name, space ? " " : "", value);
    const char *found = memmem(body, size, wanted, (size_t)length);
    if (found) return found + length;
  }
  return 0;
}

static int handle(struct connection *c, const char *path, const char *body, size_t size) {
  static const char nothing[] = "{\"error\":{\"message\":\"not found\",\"type\":\"invalid_request_error\"}}";
  const char *name = strstr(path, "/chat/completions ") ? member(body, size, "model", "\"") : 0;
  char model[64];
  if (!name && strstr(path, "/models ")) return answer(c, 200, models, strlen(models));
  if (!name && strstr(path, "/health ")) return answer(c, 200, "{}", 2);
  if (!name || sscanf(name, "%63[a-z0-9-]", model) != 1) return answer(c, 404, nothing, sizeof nothing - 1);
  struct script *s = script(model, member(body, size, "include_usage", "true") != 0);
  if (!s) return answer(c, 404, nothing, sizeof nothing - 1);
  if (!member(body, size, "stream", "true")) return whole(c, s);
  c->playing = s;
  c->frame = 0;
  if (s->gap_us) { c->due = now_ns(); return tick(c); }
  c->rest = s->text.bytes;
  c->left = s->text.size;
  return push(c);
}

// The requests that have come in whole, one after the other. -1 when the connection is gone and freed.
static int take(struct connection *c) {
  while (!c->playing && !c->left && c->input.size) {
    char *end = memmem(c->input.bytes, c->input.size, "\r\n\r\n", 4);
    if (!end) break;
    end[2] = 0;
    char *length = strcasestr(c->input.bytes, "\r\ncontent-length:");
    size_t head = (size_t)(end + 4 - c->input.bytes), size = length ? strtoul(length + 17, 0, 10) : 0;
    end[2] = '\r';
    if (c->input.size < head + size) break;
    char line[256], *body = malloc(size + 1);
    snprintf(line, sizeof line, "%.*s", (int)strcspn(c->input.bytes, "\r"), c->input.bytes);
    memcpy(body, c->input.bytes + head, size);
    c->input.size -= head + size;
    memmove(c->input.bytes, c->input.bytes + head + size, c->input.size);
    int alive = handle(c, line, body, size);
    free(body);
    if (alive < 0) return -1;
  }
  return 0;
}

static void receive(struct connection *c) {
  static char bytes[LARGEST_WRITE];
  ssize_t size = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) { drop(c); return; }
  append(&c->input, bytes, (size_t)size);
  take(c);
}

static void admit(void) {
  int fd, on = 1;
  while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
    struct connection *c = calloc(1, sizeof *c);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
  }
}

static int listen_anywhere(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (bind(listener, (void *)&address, size) || listen(listener, 4096)) return -1;
  getsockname(listener, (void *)&address, &size);
  return ntohs(address.sin_port);
}

int main(int count, char **names) {
  struct epoll_event events[MOST_EVENTS], first = {.events = EPOLLIN};
  int length = snprintf(models, sizeof models, "{\"object\":\"list\",\"data\":[");
  for (int i = 1; i < count; i++)
    length += snprintf(models + length, sizeof models - (size_t)length, "%s{\"id\":\"%s\",\"object\":\"model\","
                       "\"created\":0,\"owned_by\":\"bench\"}", i > 1 ? "," : "", names[i]);
  snprintf(models + length, sizeof models - (size_t)length, "]}");
  int port = listen_anywhere();
  if (port < 0) { perror("server"); return 1; }
  poller = epoll_create1(0);
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &first);
  printf("ready on http://127.0.0.1:%d\n", port);
  fflush(stdout);
  for (;;) {
    uint64_t now = now_ns(), next = timer_count ? timers[0]->due : 0;
    struct timespec wait = {0};
    if (next > now) { wait.tv_sec = (time_t)((next - now) / 1000000000u); wait.tv_nsec = (long)((next - now) % 1000000000u); }
    int ready = epoll_pwait2(poller, events, MOST_EVENTS, timer_count ? &wait : 0, 0);
    for (int i = 0; i < ready; i++) {
      struct connection *c = events[i].data.ptr;
      if (!c) { admit(); continue; }
      if (events[i].events & EPOLLOUT && push(c) < 0) continue;
      if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
    }
    for (now = now_ns(); timer_count && timers[0]->due <= now;) tick(timers[0]);
  }
}
