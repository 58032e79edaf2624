// A model on a CPU of the CCE-C intrinsics that the kernels of AKG call.
//
// An understanding of the intrinsics, not proof on hardware: the unified buffer is an array full of garbage, every access
// is checked, blocks run one after another, and so do instructions; what each reads and writes, flags and barriers are
// noted for pipe_order.py.  A maximum or minimum of a NaN, and a conversion to int32 whose result is used but not known,
// are violations: what the hardware gives there is not known.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

typedef _Float16 half;
#define __global__
#define __gm__
#define __ubuf__
#define UNIFIED_BYTES 262144
#define COMPARED_BYTES 16

enum pipe_t { PIPE_S, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_ALL };
enum event_t { EVENT_ID0, EVENT_ID1, EVENT_ID2, EVENT_ID3, EVENT_ID4, EVENT_ID5, EVENT_ID6, EVENT_ID7 };

namespace model {
static unsigned char unified[UNIFIED_BYTES];
static char violation[160];
struct Buffer { unsigned char *begin, *end; };
static Buffer buffers[8];
static int buffer_count;
static uint64_t mask_high = ~0ull, mask_low = ~0ull;
static bool compared[128];
static half scale_of_conversion = 1;

static void fail(const char *what) {
  if (!violation[0]) snprintf(violation, sizeof violation, "%s", what);
}

// The trace of a block: of each instruction its kind, line, pipe, target and flag, how many intervals of bytes it reads
// and writes, and these.  Bytes are those of the unified buffer, of the register of comparisons, and of the tensors.
enum kind_t { USE, SET, WAIT, BARRIER, REGISTER };
static std::vector<int32_t> trace;
static std::vector<std::pair<int32_t, int32_t>> touched[2];  // by the instruction that runs: read, written

static void touch(bool writes, int32_t start, size_t bytes) {
  auto &spans = touched[writes];
  for (size_t back = 1; back <= 2 && back <= spans.size(); back++) {  // two operands are read in turn
    auto &span = spans[spans.size() - back];
    if (span.second == start) {
      span.second += bytes;
      return;
    }
  }
  spans.push_back({start, start + (int32_t)bytes});
}
static void touch_tensor(bool writes, const void *p, size_t bytes) {
  int32_t start = UNIFIED_BYTES + COMPARED_BYTES;
  const unsigned char *c = (const unsigned char *)p;
  for (int i = 0; i < buffer_count; start += buffers[i].end - buffers[i].begin, i++)
    if (c >= buffers[i].begin && c < buffers[i].end) return touch(writes, start + (c - buffers[i].begin), bytes);
}
static void touch_compared(bool writes, int lane) { touch(writes, UNIFIED_BYTES + lane / 8, 1); }

static void note(kind_t kind, int line, int pipe, int target = 0, int flag = 0) {
  trace.insert(trace.end(), {kind, line, pipe, target, flag});
  for (auto &spans : touched) {
    std::sort(spans.begin(), spans.end());
    size_t kept = 0;
    for (auto &span : spans)
      if (kept && span.first <= spans[kept - 1].second)
        spans[kept - 1].second = std::max(spans[kept - 1].second, span.second);
      else
        spans[kept++] = span;
    spans.resize(kept);
    trace.push_back(kept);
  }
  for (auto &spans : touched) {
    for (auto &span : spans) trace.insert(trace.end(), {span.first, span.second});
    spans.clear();
  }
}
static void used(pipe_t pipe, int line) { note(USE, line, pipe); }

static bool in_unified(const void *p, size_t bytes) {
  const unsigned char *c = (const unsigned char *)p;
  if (c >= unified && bytes <= UNIFIED_BYTES && c + bytes <= unified + UNIFIED_BYTES) return true;
  fail("an access outside the unified buffer");
  return false;
}
static bool in_global(const void *p, size_t bytes) {
  const unsigned char *c = (const unsigned char *)p;
  for (int i = 0; i < buffer_count; i++)
    if (c >= buffers[i].begin && c + bytes <= buffers[i].end) return true;
  fail("an access outside every tensor and its padding");
  return false;
}
static bool enabled(int lane) { return (lane < 64 ? mask_low >> lane : mask_high >> (lane - 64)) & 1; }

// An element of the unified buffer that is read or written.
template <class T> static T *element(bool writes, T *p) {
  static T nowhere;
  if (!in_unified(p, sizeof(T))) return &nowhere;
  touch(writes, (unsigned char *)p - unified, sizeof(T));
  return p;
}
// Lane of a repeat: lanes fill blocks of 32 bytes; strides count blocks.
template <class T> static T *lane(bool writes, T *base, int repeat, int index, int block_stride, int repeat_stride) {
  const int per_block = 32 / sizeof(T);
  long blocks = (long)repeat * repeat_stride + (long)(index / per_block) * block_stride;
  return element(writes, (T *)((char *)base + blocks * 32) + index % per_block);
}
template <class T> static T get(T *base, int repeat, int index, int block_stride, int repeat_stride) {
  return *lane(false, base, repeat, index, block_stride, repeat_stride);
}
template <class T> static void put(T *base, int repeat, int index, int block_stride, int repeat_stride, T value) {
  *lane(true, base, repeat, index, block_stride, repeat_stride) = value;
}

// A buffer as the scalar unit sees it, and an element of one; a line is where its instruction is written.
template <class T> struct Scalar {
  T *place;
  int line;
  operator T() const {
    T value = *element(false, place);
    used(PIPE_S, line);
    return value;
  }
  void operator=(T value) {
    *element(true, place) = value;
    used(PIPE_S, line);
  }
  void operator=(const Scalar &other) { *this = (T)other; }
};
template <class T> struct Unified {
  T *base;
  explicit operator T *() const { return base; }
  struct Index {  // which notes where it was made
    long value;
    int line;
    Index(long value, int line = __builtin_LINE()) : value(value), line(line) {}
  };
  Scalar<T> operator[](Index index) const { return {base + index.value, index.line}; }
};

template <class T> static T ordered(T a, T b, bool greater) {
  if (std::isnan((float)a) || std::isnan((float)b)) fail("a maximum or minimum of a NaN");
  return (greater ? a > b : a < b) ? a : b;
}

template <class T, class F>
static void binary(T *d, T *a, T *b, int repeats, int db, int ab, int bb, int dr, int ar, int br, F f) {
  const int lanes = 256 / sizeof(T);
  for (int r = 0; r < repeats; r++) {
    T result[128];  // all lanes are read before one is written
    for (int i = 0; i < lanes; i++)
      if (enabled(i)) result[i] = f(get(a, r, i, ab, ar), get(b, r, i, bb, br));
    for (int i = 0; i < lanes; i++)
      if (enabled(i)) put(d, r, i, db, dr, result[i]);
  }
}
template <class D, class S, class F>
static void convert(D *d, S *s, int repeats, int db, int sb, int dr, int sr, F f) {
  const int lanes = 256 / std::max(sizeof(D), sizeof(S));
  for (int r = 0; r < repeats; r++) {
    D result[128];
    for (int i = 0; i < lanes; i++)
      if (enabled(i)) result[i] = f(get(s, r, i, sb, sr));
    for (int i = 0; i < lanes; i++)
      if (enabled(i)) put(d, r, i, db, dr, result[i]);
  }
}
template <class T, class F> static void compare(T *a, T *b, int ab, int bb, F f) {
  for (int i = 0; i < (int)(256 / sizeof(T)); i++)
    if (enabled(i)) compared[i] = f(get(a, 0, i, ab, 8), get(b, 0, i, bb, 8)), touch_compared(true, i);
}
// Beyond int32 and for NaN the answer is poison: a kernel may compute it, and must not use it.
static int32_t rounded(double v) {
  v = std::nearbyint(v);
  return v >= -2147483648.0 && v <= 2147483647.0 ? (int32_t)v : 0x5A5A5A5A;
}
template <class T>
static void copy(T *d, T *s, int bursts, int length, int source_gap, int target_gap, bool loads) {
  char *to = (char *)d, *from = (char *)s;
  for (int i = 0; i < bursts; i++) {
    size_t bytes = (size_t)length * 32;
    bool fits = loads ? in_global(from, bytes) && in_unified(to, bytes) : in_unified(from, bytes) && in_global(to, bytes);
    if (!fits) return;
    touch_tensor(!loads, loads ? from : to, bytes);
    touch(loads, (unsigned char *)(loads ? to : from) - unified, bytes);
    memcpy(to, from, bytes);
    to += (length + target_gap) * 32L;
    from += (length + source_gap) * 32L;
  }
}
}  // namespace model

static int block_idx;
#define LINE int line = __builtin_LINE()  // where the kernel has the instruction
static inline void set_flag(pipe_t from, pipe_t to, event_t flag, LINE) {
  model::note(model::SET, line, from, to, flag);
}
static inline void wait_flag(pipe_t from, pipe_t to, event_t flag, LINE) {
  model::note(model::WAIT, line, from, to, flag);
}
static inline void pipe_barrier(pipe_t pipe, LINE) { model::note(model::BARRIER, line, pipe); }
static inline void set_atomic_none() {}
static inline uint64_t get_status() { return 0; }
static inline void set_vector_mask(uint64_t high, uint64_t low, LINE) {
  model::mask_high = high, model::mask_low = low;
  model::note(model::REGISTER, line, PIPE_V);
}
static inline void set_deqscale(half scale, LINE) {
  model::scale_of_conversion = scale;
  model::note(model::REGISTER, line, PIPE_V);
}

template <class T>
static void copy_gm_to_ubuf(T *d, T *s, int, int bursts, int length, int source_gap, int target_gap, LINE) {
  model::copy(d, s, bursts, length, source_gap, target_gap, true);
  model::used(PIPE_MTE2, line);
}
template <class T>
static void copy_ubuf_to_gm(T *d, T *s, int, int bursts, int length, int source_gap, int target_gap, LINE) {
  model::copy(d, s, bursts, length, source_gap, target_gap, false);
  model::used(PIPE_MTE3, line);
}
template <class T>
static void copy_ubuf_to_ubuf(T *d, T *s, int, int bursts, int length, int source_gap, int target_gap, LINE) {
  for (int i = 0; i < bursts; i++) {
    char *to = (char *)d + (long)i * (length + target_gap) * 32, *from = (char *)s + (long)i * (length + source_gap) * 32;
    if (!model::in_unified(to, length * 32) || !model::in_unified(from, length * 32)) return;
    model::touch(false, (unsigned char *)from - model::unified, length * 32);
    model::touch(true, (unsigned char *)to - model::unified, length * 32);
    memmove(to, from, length * 32);
  }
  model::used(PIPE_V, line);
}
template <class T, class S> static void vector_dup(T *d, S value, int repeats, int db, int, int dr, int, LINE) {
  for (int r = 0; r < repeats; r++)
    for (int i = 0; i < (int)(256 / sizeof(T)); i++)
      if (model::enabled(i)) model::put(d, r, i, db, dr, (T)value);
  model::used(PIPE_V, line);
}
#define BINARY(NAME, EXPRESSION)                                                                          \
  template <class T>                                                                                      \
  static void NAME(T *d, T *a, T *b, int n, int db, int ab, int bb, int dr, int ar, int br, LINE) {       \
    model::binary(d, a, b, n, db, ab, bb, dr, ar, br, [](T x, T y) -> T { return EXPRESSION; });          \
    model::used(PIPE_V, line);                                                                            \
  }
BINARY(vadd, (T)(x + y))
BINARY(vsub, (T)(x - y))
BINARY(vmul, (T)(x * y))
BINARY(vdiv, (T)(x / y))
BINARY(vmax, model::ordered(x, y, true))
BINARY(vmin, model::ordered(x, y, false))
#define SCALAR(NAME, EXPRESSION)                                                                          \
  template <class T, class S>                                                                             \
  static void NAME(T *d, T *a, S s, int n, int db, int ab, int dr, int ar, LINE) {                        \
    T y = (T)s;                                                                                           \
    model::convert(d, a, n, db, ab, dr, ar, [y](T x) -> T { return EXPRESSION; });                        \
    model::used(PIPE_V, line);                                                                            \
  }
SCALAR(vadds, (T)(x + y))
SCALAR(vmuls, (T)(x * y))
#define CONVERT(NAME, D, S, EXPRESSION)                                                                   \
  static inline void NAME(D *d, S *s, int n, int db, int sb, int dr, int sr, LINE) {                      \
    model::convert(d, s, n, db, sb, dr, sr, [](S v) -> D { return EXPRESSION; });                         \
    model::used(PIPE_V, line);                                                                            \
  }
CONVERT(vconv_f322s32r, int32_t, float, model::rounded(v))
CONVERT(vconv_f162s32r, int32_t, half, model::rounded(v))
CONVERT(vconv_s322f32, float, int32_t, (float)v)
CONVERT(vconv_f322f16, half, float, (half)v)
CONVERT(vconv_f162f32, float, half, (float)v)
CONVERT(vconv_f162s8, int8_t, half, (int8_t)std::nearbyint((float)v))
CONVERT(vconv_deq, half, int32_t, (half)((float)v * (float)model::scale_of_conversion))
CONVERT(vabs, float, float, std::fabs(v))
#define COMPARE(NAME, EXPRESSION)                                                                         \
  template <class T> static void NAME(T *a, T *b, int, int, int ab, int bb, int, int, int, LINE) {        \
    model::compare(a, b, ab, bb, [](T x, T y) { return EXPRESSION; });                                    \
    model::used(PIPE_V, line);                                                                            \
  }
COMPARE(vcmp_lt, x < y)
COMPARE(vcmp_le, x <= y)
COMPARE(vcmp_gt, x > y)
COMPARE(vcmp_ge, x >= y)
COMPARE(vcmp_eq, x == y)
COMPARE(vcmp_ne, x != y)
template <class T>
static void vsel(T *d, T *a, T *b, int n, int db, int ab, int bb, int dr, int ar, int br, LINE) {
  for (int r = 0; r < n; r++)
    for (int i = 0; i < (int)(256 / sizeof(T)); i++)
      if (model::enabled(i)) {
        T first = model::get(a, r, i, ab, ar), second = model::get(b, r, i, bb, br);
        model::touch_compared(false, i);
        model::put(d, r, i, db, dr, model::compared[i] ? first : second);
      }
  model::used(PIPE_V, line);
}
