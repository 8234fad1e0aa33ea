// Keeps one CPU from halting: it spins at the lowest priority there is (SCHED_IDLE) for SECONDS, and yields to all else.
//
//   awake SECONDS
//
// A virtual CPU that halts may wait many milliseconds until its host runs it again. That would be the machine's delay and
// not the gateway's.
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <time.h>

static void rest(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int main(int count, char **words) {
  struct sched_param lowest = {0};
  time_t end = time(0) + (count > 1 ? atoi(words[1]) : 60);
  sched_setscheduler(0, SCHED_IDLE, &lowest);
  while (time(0) < end)
    for (int i = 0; i < 20000; i++) rest();
}
