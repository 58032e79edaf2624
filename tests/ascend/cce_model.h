// A model on a CPU of the CCE-C intrinsics that the kernels of AKG call.
//
// An understanding of the intrinsics, not proof on hardware: the unified buffer is an array full of garbage, every access
// is checked, blocks run one after another, and flags and barriers do nothing.  A maximum or minimum of a NaN, and a
// conversion to int32 whose result is used but not known, are violations: what the hardware gives there is not known.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>

typedef _Float16 half;
#define __global__
#define __gm__
#define __ubuf__
#define UNIFIED_BYTES 262144

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

// Lane of a repeat: lanes fill blocks of 32 bytes; strides count blocks.
template <class T> static T *lane(T *base, int repeat, int index, int block_stride, int repeat_stride) {
  const int per_block = 32 / sizeof(T);
  long blocks = (long)repeat * repeat_stride + (long)(index / per_block) * block_stride;
  T *p = (T *)((char *)base + blocks * 32) + index % per_block;
  static T nowhere;
  return in_unified(p, sizeof(T)) ? p : &nowhere;
}

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
      if (enabled(i)) result[i] = f(*lane(a, r, i, ab, ar), *lane(b, r, i, bb, br));
    for (int i = 0; i < lanes; i++)
      if (enabled(i)) *lane(d, r, i, db, dr) = result[i];
  }
}
template <class D, class S, class F>
static void convert(D *d, S *s, int repeats, int db, int sb, int dr, int sr, F f) {
  const int lanes = 256 / std::max(sizeof(D), sizeof(S));
  for (int r = 0; r < repeats; r++) {
    D result[128];
    for (int i = 0; i < lanes; i++)
      if (enabled(i)) result[i] = f(*lane(s, r, i, sb, sr));
    for (int i = 0; i < lanes; i++)
      if (enabled(i)) *lane(d, r, i, db, dr) = result[i];
  }
}
template <class T, class F> static void compare(T *a, T *b, int ab, int bb, F f) {
  for (int i = 0; i < (int)(256 / sizeof(T)); i++)
    if (enabled(i)) compared[i] = f(*lane(a, 0, i, ab, 8), *lane(b, 0, i, bb, 8));
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
    memcpy(to, from, bytes);
    to += (length + target_gap) * 32L;
    from += (length + source_gap) * 32L;
  }
}
}  // namespace model

static int block_idx;
enum pipe_t { PIPE_S, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_ALL };
enum event_t { EVENT_ID0, EVENT_ID1, EVENT_ID2, EVENT_ID3, EVENT_ID4, EVENT_ID5, EVENT_ID6, EVENT_ID7 };
static inline void set_flag(pipe_t, pipe_t, event_t) {}
static inline void wait_flag(pipe_t, pipe_t, event_t) {}
static inline void pipe_barrier(pipe_t) {}
static inline void set_atomic_none() {}
static inline uint64_t get_status() { return 0; }
static inline void set_vector_mask(uint64_t high, uint64_t low) { model::mask_high = high, model::mask_low = low; }
static inline void set_deqscale(half scale) { model::scale_of_conversion = scale; }

template <class T> static void copy_gm_to_ubuf(T *d, T *s, int, int bursts, int length, int source_gap, int target_gap) {
  model::copy(d, s, bursts, length, source_gap, target_gap, true);
}
template <class T> static void copy_ubuf_to_gm(T *d, T *s, int, int bursts, int length, int source_gap, int target_gap) {
  model::copy(d, s, bursts, length, source_gap, target_gap, false);
}
template <class T>
static void copy_ubuf_to_ubuf(T *d, T *s, int, int bursts, int length, int source_gap, int target_gap) {
  for (int i = 0; i < bursts; i++) {
    char *to = (char *)d + (long)i * (length + target_gap) * 32, *from = (char *)s + (long)i * (length + source_gap) * 32;
    if (model::in_unified(to, length * 32) && model::in_unified(from, length * 32)) memmove(to, from, length * 32);
  }
}
template <class T, class S> static void vector_dup(T *d, S value, int repeats, int db, int, int dr, int) {
  for (int r = 0; r < repeats; r++)
    for (int i = 0; i < (int)(256 / sizeof(T)); i++)
      if (model::enabled(i)) *model::lane(d, r, i, db, dr) = (T)value;
}
#define BINARY(NAME, EXPRESSION)                                                                          \
  template <class T>                                                                                      \
  static void NAME(T *d, T *a, T *b, int n, int db, int ab, int bb, int dr, int ar, int br) {             \
    model::binary(d, a, b, n, db, ab, bb, dr, ar, br, [](T x, T y) -> T { return EXPRESSION; });          \
  }
BINARY(vadd, (T)(x + y))
BINARY(vsub, (T)(x - y))
BINARY(vmul, (T)(x * y))
BINARY(vdiv, (T)(x / y))
BINARY(vmax, model::ordered(x, y, true))
BINARY(vmin, model::ordered(x, y, false))
#define SCALAR(NAME, EXPRESSION)                                                                          \
  template <class T, class S> static void NAME(T *d, T *a, S s, int n, int db, int ab, int dr, int ar) {  \
    T y = (T)s;                                                                                           \
    model::convert(d, a, n, db, ab, dr, ar, [y](T x) -> T { return EXPRESSION; });                        \
  }
SCALAR(vadds, (T)(x + y))
SCALAR(vmuls, (T)(x * y))
#define CONVERT(NAME, D, S, EXPRESSION)                                                                   \
  static inline void NAME(D *d, S *s, int n, int db, int sb, int dr, int sr) {                            \
    model::convert(d, s, n, db, sb, dr, sr, [](S v) -> D { return EXPRESSION; });                         \
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
  template <class T> static void NAME(T *a, T *b, int, int, int ab, int bb, int, int, int) {              \
    model::compare(a, b, ab, bb, [](T x, T y) { return EXPRESSION; });                                    \
  }
COMPARE(vcmp_lt, x < y)
COMPARE(vcmp_le, x <= y)
COMPARE(vcmp_gt, x > y)
COMPARE(vcmp_ge, x >= y)
COMPARE(vcmp_eq, x == y)
COMPARE(vcmp_ne, x != y)
template <class T> static void vsel(T *d, T *a, T *b, int n, int db, int ab, int bb, int dr, int ar, int br) {
  for (int r = 0; r < n; r++)
    for (int i = 0; i < (int)(256 / sizeof(T)); i++)
      if (model::enabled(i))
        *model::lane(d, r, i, db, dr) = model::compared[i] ? *model::lane(a, r, i, ab, ar) : *model::lane(b, r, i, bb, br);
}
