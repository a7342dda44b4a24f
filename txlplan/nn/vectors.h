// Vectors of fp32 as wide as a CPU's, numbers of 2 bytes as parts of them, and a thread's share of work: what all code of this
// directory is made of. It is put before that code, which is then compiled as one.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <omp.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
using bfloat16 = uint16_t;
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline Vector load(const bfloat16* from) {
#if defined(__AVX512F__)  // GCC makes five instructions of a conversion of vectors
  const auto bits = reinterpret_cast<Bits>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__AVX2__)
  const auto bits = reinterpret_cast<Bits>(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  const auto bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Bits);
#endif
  return reinterpret_cast<Vector>(bits << 16);
}
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
inline void store(bfloat16* to, Vector value) {  // as `narrow` does
  const Bits bits = reinterpret_cast<Bits>(value);
  const Bits near = value != value ? Bits{} + 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(near, Halves);
}
inline float wide(float value) { return value; }
inline float wide(bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, bfloat16* to) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  *to = value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t Places __attribute__((vector_size(16)));
#ifdef __clang__
#define PICKED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICKED(a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})
#endif
inline Quad folded(Vector value) {
  Quad parts[LANES / 4];
  std::memcpy(parts, &value, sizeof(value));
  for (int half = LANES / 8; half; half /= 2)
    for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
  return parts[0];
}
inline float total(Vector value) {
  const Quad sum = folded(value);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

inline Vector larger(Vector a, Vector b) {  // b where a is no number
#if defined(__AVX512F__)  // GCC makes two instructions of a comparison and a choice
  return reinterpret_cast<Vector>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX__)
  return reinterpret_cast<Vector>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}

// Of x <= 0, to 1e-7 relative, as Cephes' expf: 2^n times a polynomial within half of ln 2; 0 below -80.
inline Vector exponential(Vector x) {
  const Vector shifter = Vector{} + 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
  const Vector rounded = x * 1.44269504f + shifter;
  const Vector n = rounded - shifter;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r + 1.0f) * r + 1.0f;
#ifdef __AVX512F__
  const Vector power = reinterpret_cast<Vector>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const Vector power = p * reinterpret_cast<Vector>((__builtin_convertvector(n, Whole) + 127) << 23);
#endif
  return x < -80.0f ? Vector{} : power;  // a CPU is slow with numbers that are smaller still
}

struct Share {  // of a number of things, what one thread does
  int64_t first, last;
};
inline Share share(int64_t things, int64_t threads, int64_t thread) {
  return {things * thread / threads, things * (thread + 1) / threads};
}
inline Share share(int64_t things) { return share(things, omp_get_num_threads(), omp_get_thread_num()); }

inline int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

class Arena {  // what a thread works in, one piece after the other
 public:
  template <class T>
  T* take(int64_t count) {
    const int64_t at = used_;
    used_ += rounded(count * sizeof(T), 64) + 64;
    return reinterpret_cast<T*>(begin_ + at);
  }
  void open() {
    static thread_local std::vector<char> own;
    if (static_cast<int64_t>(own.size()) < used_ + 64) own = std::vector<char>(used_ + 64);
    begin_ = rounded(reinterpret_cast<uintptr_t>(own.data()), 64);
    used_ = 0;
  }

 private:
  uintptr_t begin_ = 0;
  int64_t used_ = 0;
};

}  // namespace
