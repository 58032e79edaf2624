/* The threads that kernels are launched on, instead of those of TVM's runtime.
 *
 * A kernel calls launch(f, closure, 0) to have f(task, {tasks}, closure) run once for each task of 0 .. tasks - 1, with as
 * many tasks as the launcher likes: f divides its range by them.  There are three layers:
 *
 *   own     One pool of the process.  Shares of the work are claimed one by one by whoever is there.  The caller takes part,
 *           and waits for nobody who has not begun: with no helper awake in time it does everything itself, as one thread
 *           would.  A caller that finds the pool taken, by another thread or by a launch of its own further up the stack,
 *           works alone.  Helpers that sleep are woken where the work takes longer than that.
 *   openmp  The team that libgomp keeps for the calling thread, which is torch's: fast while it is awake, as it is for some
 *           milliseconds after each operator of torch, and then the pool's helpers would find no CPU.  It is not to be used
 *           where a member sleeps or was preempted, since libgomp waits for all of them.
 *   serial  The calling thread.
 *
 * By AUTO and TORCH each launch chooses the first two by what is so at that moment: the CPU clocks of the team's members
 * are read twice, and where all have advanced, they run.  That takes a microsecond and never a stall.
 *
 * On a machine where others want the CPUs, a thread can lose its own while it has a share, and the launch waits for it; the
 * caller, too, by waking a helper that is given the caller's CPU.  Such a stall is a debt, of the pool or of a thread with
 * its team, which is not used again before launches without it have taken many times as long: so stalls cost a few
 * hundredths of the time and are too rare for the 99th percentile.
 *
 * threads.<architecture>.ll is made of this file by `pytest tests/launch/test_threads_ir.py --update-golden`; nothing
 * compiles C where the library is installed or used.  It is loaded once a process and never unloaded.  No thread-local
 * variables: the JIT that loads it would have to be taught them. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct { void *sync_handle; int32_t num_task; } Group;
typedef int (*Lambda)(int task, Group *group, void *closure);
typedef struct { int32_t type_index, padding; int64_t value; } Any; /* TVMFFIAny, of which we read and write integers */

extern void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message);

/* What a thread's launches run on; the numbers are those of threads.py. */
enum { SERIAL, OWN, OPENMP, AUTO, TORCH };

enum {
  CACHE_LINE = 128,           /* bytes that two threads must not both write to: a line, on some CPUs a pair of them */
  MOST_HELPERS = 511,
  MOST_SHARES = 1023,
  STACK_BYTES = 1 << 20,      /* of a helper; what all libraries keep per thread lies there, too */
  CLOCKS = 4,                 /* members of a team whose clocks are read, so that a large team costs no more */
  LEARN_AT = 8,               /* launch of a thread from torch at which it gets to know its team: short-lived ones make none */
  PATIENCE_NS = 10000,        /* how long a caller waits for the last shares before it asks whether their threads run */
  LOOK_AGAIN_NS = 200000,     /* and how long it sleeps before it asks again */
  WAKING_NS = 100000,         /* that waking may cost each of the first launches after some that ran alone */
  TRIES = 4,                  /* which so many are: helpers have to be woken, and then found looking for work */
  STALL_NS = 2000,            /* time lost in a launch from which it is a stall */
  MOST_DEBT_NS = 20000000,
  PAID_BY = 16,               /* for each helper, how many times a debt is paid by launches without */
  USELESS = 4,                /* launches in a row in which no helper came in time, after which they are woken for */
  LOOK_PART = 4,              /* of the time that it worked, a helper looks for the next launch where there was none before */
  KERNELS = 64,               /* whose last launches are remembered, by address */
  TRY_EVERY = 64,             /* of so many launches the first TRIES */
};

/* --- What the process has ------------------------------------------------------------------------------------------- */

static struct {
  int threads;                /* that one launch may use, the caller included */
  int shares;                 /* pieces that the work is cut into for each thread */
  int64_t look_ns;            /* how long an idle helper looks for the next launch, in a loop of launches */
} settings = {1, 4, 0};

static struct {
  void (*parallel)(void (*)(void *), void *, unsigned threads, unsigned flags);
  int (*thread_num)(void), (*num_threads)(void), (*max_threads)(void), (*in_parallel)(void);
  pid_t process;              /* that may use it: libgomp hangs in a forked child whose parent used it */
} openmp;

/* What stalls have cost and launches without have not yet paid. */
typedef struct { _Atomic int64_t ns; } Debt;

/* What is known of a calling thread, kept under a key. */
typedef struct {
  int layer, launches;
  int members;                /* of its team when it was last used; 0 for never */
  clockid_t clocks[CLOCKS];   /* CPU clocks of the first of them, without the caller's own */
  Debt debt;                  /* of that team */
} Caller;

static pthread_key_t callers;
static int has_callers;

static atomic_long launches[3]; /* by the layer that served them */

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory"); /* `yield` does nothing on most cores */
#endif
}

/* At most so long; 0 for ever. */
static void futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t ns) {
  struct timespec most = {ns / 1000000000, ns % 1000000000};
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ns ? &most : (void *)0, (void *)0, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, (void *)0, (void *)0, 0);
}

static int64_t cpu_time(clockid_t clock) {
  struct timespec t;
  return clock_gettime(clock, &t) ? -1 : t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Whether all threads of some CPU clocks run at this moment, neither asleep nor preempted: their clocks advance. */
static int all_run(const clockid_t *clocks, int count) {
  int64_t before[CLOCKS];
  for (int i = 0; i < count; i++)
    if ((before[i] = cpu_time(clocks[i])) < 0) return 0;
  for (int i = 0; i < count; i++)
    if (cpu_time(clocks[i]) <= before[i]) return 0;
  return 1;
}

static int in_debt(Debt *debt) { return atomic_load_explicit(&debt->ns, memory_order_relaxed) > 0; }

/* A launch that took longer than its caller would have alone, by the CPU time that its own part of the work took: threads
 * were in one another's way, or had to be waited for. */
static void charge(Debt *debt, int64_t took, int64_t alone) {
  int64_t stall = took - alone - alone / 8;
  if (stall < STALL_NS) return;
  int64_t ns = atomic_load_explicit(&debt->ns, memory_order_relaxed) + stall;
  atomic_store_explicit(&debt->ns, ns < MOST_DEBT_NS ? ns : MOST_DEBT_NS, memory_order_relaxed);
}

/* The more threads are given up, the sooner it is paid. */
static void pay(Debt *debt, int64_t spent, int helpers) {
  int64_t ns = atomic_load_explicit(&debt->ns, memory_order_relaxed) - spent * helpers / PAID_BY;
  atomic_store_explicit(&debt->ns, ns > 0 ? ns : 0, memory_order_relaxed);
}

static int alone(Lambda f, void *closure) {
  Group group = {0, 1};
  atomic_fetch_add_explicit(&launches[SERIAL], 1, memory_order_relaxed);
  return f(0, &group, closure);
}

/* The message that f left is the other thread's, so the caller's gets one. */
static int elsewhere(int status) {
  if (status) TVMFFIErrorSetRaisedFromCStr("RuntimeError", "a share of a kernel failed in another thread");
  return status;
}

/* --- own ------------------------------------------------------------------------------------------------------------ */

/* All that decides who may take what is one word, so that one compare-and-swap validates it:
 *
 *     generation (34 bits) | helpers (10) | first share not taken (10) | end of the shares not taken (10)
 *
 * The caller takes shares from the front and helpers from the back, so that in a loop each finds in its caches what it had
 * the last time.  A helper that was preempted before its swap cannot take of a later launch: the generation differs.
 * `job` is written between launches only, when all shares are done; one that was read before a swap that succeeds is that
 * of the word. */
typedef uint64_t Claims;
enum { BITS = 10, FIELD = (1 << BITS) - 1 };
static uint64_t claims_end(Claims c) { return c & FIELD; }
static uint64_t claims_first(Claims c) { return c >> BITS & FIELD; }
static uint64_t claims_helpers(Claims c) { return c >> 2 * BITS & FIELD; }
static int claims_left(Claims c) { return claims_first(c) < claims_end(c); }
static Claims claims_next(Claims c, uint64_t helpers, uint64_t shares) {
  return ((c >> 3 * BITS) + 1) << 3 * BITS | helpers << 2 * BITS | shares;
}

typedef struct {
  _Alignas(CACHE_LINE) _Atomic uint32_t asleep; /* futex: 1 while it sleeps, or is about to */
  _Atomic int busy;                             /* may have shares that it has not reported */
  _Atomic int held;                             /* somebody chooses its CPUs, and gives back these */
  cpu_set_t given;
  pid_t thread;                                 /* these two are written before it is busy */
  clockid_t clock;
} Helper;

static struct {
  _Alignas(CACHE_LINE) _Atomic Claims claims;
  _Alignas(CACHE_LINE) _Atomic uint32_t done; /* shares that helpers have finished; the caller sleeps on it */
  _Atomic uint32_t waiting;                   /* whether it does */
  _Alignas(CACHE_LINE) _Atomic(Lambda) f;     /* the job, down to `looking`; read by helpers */
  _Atomic(void *) closure;
  _Atomic int shares, cpu, status;            /* cpu: where the caller is */
  _Atomic uint32_t to_wake;                   /* the next helper that nobody has woken for this job */
  _Atomic int64_t look_ns;
  _Alignas(CACHE_LINE) _Atomic int taken;     /* by a caller */
  _Atomic int tries;                          /* launches that may still wake helpers for free */
  _Atomic pid_t process;                      /* whose threads the helpers are; -1 while that is being changed */
  int started, refused;                       /* helpers there are; whether the system would not give more */
  _Atomic int64_t ended;                      /* when the last launch did */
  unsigned useless, passed;                   /* jobs in a row that no helper came to; launches alone since */
  int64_t lasted[KERNELS];                    /* how long the last launch of a kernel would have taken alone */
  Debt debt;
  Helper helpers[MOST_HELPERS];
} pool;

/* Choose a helper's CPUs for a moment, until `let_go`.  One thread at a time may: the caller fetches helpers that another
 * helper is just waking, and would take what that one chose for what they were given. */
static int hold(Helper *helper) {
  if (atomic_exchange(&helper->held, 1)) return 0;
  if (!sched_getaffinity(helper->thread, sizeof helper->given, &helper->given)) return 1;
  atomic_store(&helper->held, 0);
  return 0;
}

static void let_go(Helper *helper) {
  sched_setaffinity(helper->thread, sizeof helper->given, &helper->given); /* moves nobody from an allowed CPU */
  atomic_store(&helper->held, 0);
}

/* Wake a helper if it sleeps, on another CPU than the caller's, where the scheduler likes to put it and where it would only be
 * in the way.  Which CPUs it may use is as before when this returns. */
static void wake(Helper *helper) {
  if (!atomic_load(&helper->asleep) || !atomic_exchange(&helper->asleep, 0)) return;
  int held = hold(helper);
  if (held) {
    cpu_set_t others = helper->given;
    CPU_CLR((size_t)atomic_load_explicit(&pool.cpu, memory_order_relaxed), &others);
    if (CPU_COUNT(&others)) sched_setaffinity(helper->thread, sizeof others, &others);
  }
  futex_wake(&helper->asleep);
  if (held) let_go(helper);
}

/* Wake helpers that sleep, two before each share: so the number of threads doubles, no wake-up is the task of a thread that
 * may itself be stalled, and the caller is not kept from its own first share for long. */
static void wake_two(Claims seen) {
  for (int i = 0; i < 2; i++) {
    uint32_t next = atomic_load_explicit(&pool.to_wake, memory_order_relaxed);
    if (next >= claims_helpers(seen)) return;
    next = atomic_fetch_add_explicit(&pool.to_wake, 1, memory_order_relaxed);
    if (next >= claims_helpers(seen)) return;
    wake(&pool.helpers[next]);
  }
}

/* What the time of a caller's part of the work is known by. */
typedef struct {
  int64_t began;
  int64_t cpu;    /* by its own CPU clock, which takes longer to read than a small share; 0 as long as nobody is to help */
  int64_t waking; /* ns that waking took of it */
} Part;

/* Take shares until none is left; return how many.  `self` is the helper's number, -1 for the caller, who wakes helpers once
 * `part->cpu` is set, or what is left, by the time of the shares done, would take longer alone than waking them. */
static int work(int self, Part *part) {
  int did = 0;
  for (;;) {
    Claims seen = atomic_load(&pool.claims);
    if (!claims_left(seen) || self >= (int)claims_helpers(seen)) return did;
    Lambda f = atomic_load_explicit(&pool.f, memory_order_relaxed);
    void *closure = atomic_load_explicit(&pool.closure, memory_order_relaxed);
    Group group = {0, atomic_load_explicit(&pool.shares, memory_order_relaxed)};
    Claims less = self < 0 ? seen + (1 << BITS) : seen - 1;
    if (!atomic_compare_exchange_weak(&pool.claims, &seen, less)) continue;
    int64_t left = (int64_t)claims_end(less) - (int64_t)claims_first(less), start;
    int some_asleep = left > 0 && atomic_load_explicit(&pool.to_wake, memory_order_relaxed) < claims_helpers(less);
    if (some_asleep && (part->cpu || (did && (now() - part->began) * left > WAKING_NS * did))) {
      start = now();
      if (!part->cpu) part->cpu = cpu_time(CLOCK_THREAD_CPUTIME_ID) - (start - part->began);
      wake_two(less);
      part->waking += now() - start;
    }
    int status = f((int)(self < 0 ? claims_first(seen) : claims_end(less)), &group, closure);
    if (status) atomic_store(&pool.status, status);
    did++;
  }
}

static int work_there(int self) {
  Claims seen = atomic_load(&pool.claims);
  return claims_left(seen) && self < (int)claims_helpers(seen);
}

static void look(int self, int64_t ns) {
  for (int64_t until = ns ? now() + ns : 0; until && !work_there(self) && now() < until;)
    for (int i = 0; i < 8; i++) relax();
}

static void *help(void *number) {
  int self = (int)(intptr_t)number;
  Helper *me = &pool.helpers[self];
  me->thread = (pid_t)syscall(SYS_gettid);
  if (pthread_getcpuclockid(pthread_self(), &me->clock)) me->clock = -1;
  for (;;) {
    int useful = sched_getcpu() != atomic_load_explicit(&pool.cpu, memory_order_relaxed);
    if (useful) {
      atomic_store(&me->busy, 1);
      Part part = {0, 1, 0};
      int64_t began = now();
      int did = work(self, &part);
      int64_t more = did ? (now() - began) / LOOK_PART : 0, closely = atomic_load_explicit(&pool.look_ns, memory_order_relaxed);
      if (did) atomic_fetch_add(&pool.done, (uint32_t)did); /* the job may be over now, and another one begin */
      if (did && atomic_load(&pool.waiting)) futex_wake(&pool.done);
      atomic_store(&me->busy, 0);
      if (more > settings.look_ns) more = settings.look_ns;
      look(self, more > closely ? more : closely);
    }
    atomic_store(&me->asleep, 1);
    if (useful && work_there(self)) atomic_store(&me->asleep, 0); /* it came before others could see this one asleep */
    while (atomic_load(&me->asleep)) futex_wait(&me->asleep, 1, 0);
  }
  return 0;
}

/* Start helpers up to a number, or as many as the system gives.  They take no signals and end with the process. */
static void start_helpers(int wanted) {
  pthread_attr_t attributes;
  sigset_t all, before;
  if (pool.started >= wanted || pool.refused || pthread_attr_init(&attributes)) return;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (pthread_t thread; pool.started < wanted && !pool.refused;) {
    if (pthread_create(&thread, &attributes, help, (void *)(intptr_t)pool.started)) pool.refused = 1;
    else pool.started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
  pthread_attr_destroy(&attributes);
}

/* A forked child has the parent's memory and none of its threads. */
static int belongs_to(pid_t process) {
  pid_t owner = atomic_load(&pool.process);
  if (owner == process) return 1;
  if (owner < 0 || !atomic_compare_exchange_strong(&pool.process, &owner, -1)) return 0; /* another thread is at it */
  atomic_store(&pool.claims, claims_next(atomic_load(&pool.claims), 0, 0));
  pool.started = pool.refused = 0;
  for (int i = 0; i < MOST_HELPERS; i++) {
    atomic_store_explicit(&pool.helpers[i].asleep, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.helpers[i].busy, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.helpers[i].held, 0, memory_order_relaxed);
  }
  atomic_store(&pool.taken, 0);
  atomic_store(&pool.process, process);
  return 1;
}

/* Bring helpers to this CPU that have shares and no CPU: somebody else runs on theirs, perhaps for milliseconds, and the
 * scheduler is in no hurry to move them.  The caller is about to sleep.  Returns whether there were any; `moved` says who. */
static int fetch_stalled(int helpers, uint64_t *moved) {
  cpu_set_t here;
  int found = 0;
  CPU_ZERO(&here);
  CPU_SET((size_t)sched_getcpu(), &here);
  for (int i = 0; i < helpers; i++) {
    Helper *helper = &pool.helpers[i];
    if (!atomic_load(&helper->busy) || moved[i / 64] >> i % 64 & 1 || all_run(&helper->clock, 1)) continue;
    found = 1;
    if (!hold(helper)) continue;
    moved[i / 64] |= 1ULL << i % 64;
    sched_setaffinity(helper->thread, sizeof here, &here);
  }
  return found;
}

/* Wait until helpers have done so many shares. */
static void wait_for(uint32_t shares, int helpers) {
  uint64_t moved[(MOST_HELPERS + 63) / 64] = {0};
  for (int64_t start = now(), asked = start, time; atomic_load(&pool.done) != shares;) {
    for (int i = 0; i < 8; i++) relax();
    if ((time = now()) - asked < PATIENCE_NS) continue;
    asked = time;
    if (!fetch_stalled(helpers, moved) && time - start < 5 * PATIENCE_NS) continue;
    atomic_store(&pool.waiting, 1);
    uint32_t done = atomic_load(&pool.done);
    if (done != shares) futex_wait(&pool.done, done, LOOK_AGAIN_NS);
  }
  atomic_store_explicit(&pool.waiting, 0, memory_order_relaxed);
  for (int i = 0; i < helpers; i++)
    if (moved[i / 64] >> i % 64 & 1) let_go(&pool.helpers[i]);
}

/* What a caller does that leaves the pool alone; `ended` tells how closely launches follow one another. */
static int beside_pool(Lambda f, void *closure) {
  int status = alone(f, closure);
  atomic_store_explicit(&pool.ended, now(), memory_order_relaxed);
  return status;
}

static int on_pool(Lambda f, void *closure, int threads, pid_t process) {
  if (threads > 1 && in_debt(&pool.debt)) {
    int64_t start = now();
    int status = beside_pool(f, closure);
    pay(&pool.debt, now() - start, threads - 1);
    atomic_store_explicit(&pool.tries, TRIES, memory_order_relaxed);
    return status;
  }
  if (threads < 2 || !belongs_to(process) || atomic_exchange(&pool.taken, 1)) return alone(f, closure);
  if (threads > MOST_HELPERS + 1) threads = MOST_HELPERS + 1;
  start_helpers(threads - 1);
  int helpers = pool.started < threads - 1 ? pool.started : threads - 1;
  int shares = (helpers + 1) * settings.shares;
  if (shares > MOST_SHARES) shares = MOST_SHARES;
  if (!helpers || (pool.useless >= USELESS && ++pool.passed % TRY_EVERY >= TRIES)) {
    atomic_store(&pool.taken, 0);
    return beside_pool(f, closure);
  }
  int64_t *lasted = &pool.lasted[(uintptr_t)f / 16 % KERNELS];
  /* Helpers look for more as long as for a part of what they did, and longer only where launches follow one another
   * closely: elsewhere it would be others' time. */
  int64_t start = now();
  int closely = start - atomic_load_explicit(&pool.ended, memory_order_relaxed) < settings.look_ns;
  atomic_store_explicit(&pool.look_ns, closely ? settings.look_ns : 0, memory_order_relaxed);
  atomic_store_explicit(&pool.f, f, memory_order_relaxed);
  atomic_store_explicit(&pool.closure, closure, memory_order_relaxed);
  atomic_store_explicit(&pool.shares, shares, memory_order_relaxed);
  atomic_store_explicit(&pool.cpu, sched_getcpu(), memory_order_relaxed);
  atomic_store_explicit(&pool.status, 0, memory_order_relaxed);
  atomic_store_explicit(&pool.to_wake, 0, memory_order_relaxed);
  atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
  atomic_store(&pool.claims, claims_next(atomic_load(&pool.claims), (uint64_t)helpers, (uint64_t)shares));
  Part part = {start, closely || *lasted > WAKING_NS ? cpu_time(CLOCK_THREAD_CPUTIME_ID) : 0, 0};
  int did = work(-1, &part);
  int64_t took = part.cpu ? cpu_time(CLOCK_THREAD_CPUTIME_ID) - part.cpu : now() - start;
  if (did < shares) wait_for((uint32_t)(shares - did), helpers);
  if (did < shares) pool.useless = 0;
  else if (atomic_load_explicit(&pool.to_wake, memory_order_relaxed)) pool.useless++;
  int status = atomic_load(&pool.status);
  int64_t end = now();
  atomic_store_explicit(&pool.ended, end, memory_order_relaxed);
  /* After launches alone, some wake helpers for those to come, which find them looking for work if they follow closely:
   * what that costs is no debt, or a loop of short launches would never come to be shared. */
  int tries = atomic_load_explicit(&pool.tries, memory_order_relaxed);
  if (tries) atomic_store_explicit(&pool.tries, tries - 1, memory_order_relaxed);
  if (did) {
    *lasted = (took - part.waking) * shares / did;
    charge(&pool.debt, end - start - (tries ? WAKING_NS : 0), took * shares / did);
  }
  atomic_fetch_add_explicit(&launches[OWN], 1, memory_order_relaxed);
  atomic_store(&pool.taken, 0);
  return elsewhere(status);
}

/* --- openmp --------------------------------------------------------------------------------------------------------- */

typedef struct { Lambda f; void *closure; Caller *caller; int64_t cpu; _Atomic int status; } TeamJob;

static void member(void *data) {
  TeamJob *job = data;
  int self = openmp.thread_num();
  Group group = {0, openmp.num_threads()};
  if (!self) job->caller->members = group.num_task;
  else if (self <= CLOCKS && pthread_getcpuclockid(pthread_self(), &job->caller->clocks[self - 1]))
    job->caller->clocks[self - 1] = -1; /* a clock that cannot be read does not advance */
  int status = job->f(self, &group, job->closure);
  if (status) atomic_store(&job->status, status);
  if (!self) job->cpu = cpu_time(CLOCK_THREAD_CPUTIME_ID) - job->cpu;
}

static int on_team(Lambda f, void *closure, Caller *caller) {
  TeamJob job = {f, closure, caller, cpu_time(CLOCK_THREAD_CPUTIME_ID), 0};
  int64_t start = now();
  openmp.parallel(member, &job, 0, 0);
  charge(&caller->debt, now() - start, job.cpu * caller->members);
  atomic_fetch_add_explicit(&launches[OPENMP], 1, memory_order_relaxed);
  return elsewhere(job.status);
}

/* Whether the team that the thread had last, of so many, runs at this moment. */
static int team_runs(const Caller *caller, int threads) {
  return caller->members == threads && all_run(caller->clocks, threads - 1 < CLOCKS ? threads - 1 : CLOCKS);
}

/* --- The launch ----------------------------------------------------------------------------------------------------- */

static Caller *this_caller(void) {
  if (!has_callers) return 0;
  Caller *caller = pthread_getspecific(callers);
  if (caller || !(caller = calloc(1, sizeof *caller))) return caller;
  caller->layer = AUTO;
  if (!pthread_setspecific(callers, caller)) return caller;
  free(caller);
  return 0;
}

static int launch(Lambda f, void *closure, int tasks) {
  (void)tasks; /* kernels leave it to us */
  Caller *caller = this_caller();
  int layer = caller ? caller->layer : OWN, threads = settings.threads;
  if (layer == SERIAL) return alone(f, closure);
  pid_t process = getpid();
  if (layer != OWN && openmp.parallel && openmp.process == process) {
    int team = openmp.in_parallel() ? 1 : openmp.max_threads();
    if (layer != AUTO && team < 2) return alone(f, closure);
    if (layer == OPENMP) return on_team(f, closure, caller);
    int learns = layer == TORCH && ++caller->launches == LEARN_AT, indebted = in_debt(&caller->debt);
    if (team > 1 && (learns || (!indebted && team_runs(caller, team)))) return on_team(f, closure, caller);
    if (layer == TORCH && team < threads) threads = team;
    if (indebted) {
      int64_t start = now();
      int status = on_pool(f, closure, threads, process);
      pay(&caller->debt, now() - start, team - 1);
      return status;
    }
  }
  return on_pool(f, closure, threads, process);
}

/* --- Functions that tvm-ffi finds by name --------------------------------------------------------------------------- */

#define EXPORTED(name) int __tvm_ffi_##name(void *self, const Any *args, int32_t count, Any *result)

static int give(Any *result, int64_t value) {
  result->type_index = 1; /* kTVMFFIInt */
  result->padding = 0;
  result->value = value;
  return 0;
}

/* () -> the address of launch, for kernels.  Once a process, before anything else. */
EXPORTED(launcher) {
  (void)self, (void)args, (void)count;
  if (!has_callers) has_callers = !pthread_key_create(&callers, free);
  return give(result, (int64_t)(intptr_t)launch);
}

/* (threads, shares, look_ns); launches under way go on as they were. */
EXPORTED(configure) {
  (void)self, (void)count;
  settings.threads = (int)args[0].value;
  settings.shares = (int)args[1].value;
  settings.look_ns = args[2].value;
  return give(result, 0);
}

/* (GOMP_parallel, omp_get_thread_num, omp_get_num_threads, omp_get_max_threads, omp_in_parallel): addresses. */
EXPORTED(use_openmp) {
  (void)self, (void)count;
  openmp.thread_num = (int (*)(void))args[1].value;
  openmp.num_threads = (int (*)(void))args[2].value;
  openmp.max_threads = (int (*)(void))args[3].value;
  openmp.in_parallel = (int (*)(void))args[4].value;
  openmp.parallel = (void (*)(void (*)(void *), void *, unsigned, unsigned))args[0].value;
  openmp.process = getpid();
  return give(result, 0);
}

/* (layer) -> the one that the calling thread had. */
EXPORTED(select) {
  (void)self, (void)count;
  Caller *caller = this_caller();
  int before = caller ? caller->layer : OWN;
  if (caller) caller->layer = (int)args[0].value;
  return give(result, before);
}

/* (layer) -> how many launches it served; (3) -> the helpers there are. */
EXPORTED(count) {
  (void)self, (void)count;
  return give(result, args[0].value == 3 ? pool.started : launches[args[0].value]);
}
