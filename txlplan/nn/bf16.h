// What code of bf16 shares: registers of 32 numbers, pairs of them, and tiles of AMX. It is put before that code, after vectors.h.

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifndef __AVX512BF16__
#error "this CPU, or the compiler for it, has no products of bf16"
#endif

namespace {

constexpr int64_t STEP = 32;  // rows and columns of a result that a kernel computes, and numbers of bf16 in a register
constexpr int64_t LINE = 16;  // numbers of fp32, or pairs, in a line of a cache

#if defined(__AMX_BF16__) && defined(__linux__) && !defined(WITHOUT_TILES)
#define TILES
bool asked_for_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }  // ARCH_REQ_XCOMP_PERM, XTILEDATA
const bool has_tiles = asked_for_tiles();

struct Tiles {  // a thread's, while it is there
  Tiles() {
    if (!has_tiles) return;
    alignas(64) static constexpr uint8_t SHAPE[64] = {  // palette 1; bytes of a row of each tile, in 16 bits; its rows
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 16, 16, 16, 16, 16, 16, 16};
    _tile_loadconfig(SHAPE);
  }
  ~Tiles() {
    if (has_tiles) _tile_release();
  }
};
#else
constexpr bool has_tiles = false;
struct Tiles {
  Tiles() {}
};
#endif

inline __m512i narrowed(__m512 first, __m512 second) {  // 32 numbers
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}
inline __mmask32 first_of(int64_t n) { return n >= 32 ? ~0u : n <= 0 ? 0 : (1u << n) - 1; }
inline __m512i numbers(const bfloat16* from, int64_t n) { return _mm512_maskz_loadu_epi16(first_of(n), from); }

inline void transpose(__m512i (&rows)[16]) {  // of 16 numbers of 32 bits each
  __m512i x[16];
  for (int i = 0; i < 16; i += 2)
    x[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]), x[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(x[i], x[i + 2]), rows[i + 1] = _mm512_unpackhi_epi64(x[i], x[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(x[i + 1], x[i + 3]), rows[i + 3] = _mm512_unpackhi_epi64(x[i + 1], x[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
    x[i] = _mm512_shuffle_i32x4(a, c, 0x88), x[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    x[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88), x[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = x[i];
}

inline void paired(__m512i a, __m512i b, __m512i& first, __m512i& second) {  // 32 numbers each
  alignas(64) static constexpr uint16_t EACH[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                    8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i places = _mm512_load_si512(EACH);
  first = _mm512_permutex2var_epi16(a, places, b);
  second = _mm512_permutex2var_epi16(a, _mm512_add_epi16(places, _mm512_set1_epi16(16)), b);
}

}  // namespace
