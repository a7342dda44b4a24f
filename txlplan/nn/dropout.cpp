// Dropout's masks, and what they multiply, in one pass: nothing is kept of a mask that its seed gives again.
//
// Numbers come of counters by Philox4x32 (Salmon, Moraes, Dror, Shaw 2011: Parallel random numbers: as easy as 1, 2, 3,
// doi:10.1145/2063384.2063405), whose key is the seed: element n has 16 bits of block n / BLOCK, whoever computes it. It is put
// after vectors.h.

namespace {

constexpr int64_t BLOCK = 64, COUNTERS = 8;  // elements, and counters of which each gives 128 bits
constexpr int ROUNDS = 7;  // the fewest that pass all tests of BigCrush, as the paper says
constexpr int64_t LEAST_BLOCKS = 256;  // of a thread: fewer take less time than to start it

typedef uint64_t Words __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
constexpr int64_t WORDS = LANES / 2;

inline Words product(Words a, uint32_t b) {  // of lower halves
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b)));
#else
  return (a & 0xffffffff) * b;
#endif
}

inline Words upper(Words a) {  // halves, as lower ones
#ifdef __AVX512F__  // beside multiplications, where a shift would wait for them
  return reinterpret_cast<Words>(_mm512_movehdup_ps(reinterpret_cast<__m512>(a)));
#else
  return a >> 32;
#endif
}

struct Keys {  // of each round
  Words first[ROUNDS], second[ROUNDS];

  explicit Keys(uint64_t seed) {
    uint32_t low = seed, high = seed >> 32;
    for (int round = 0; round < ROUNDS; ++round, low += 0x9e3779b9, high += 0xbb67ae85) {
      first[round] = Words{} + low;
      second[round] = Words{} + high;
    }
  }
};

// The numbers of a block. Upper halves are nothing until the end.
inline void draw(const Keys& keys, uint64_t block, uint16_t* to) {
  Words lanes;
  for (int64_t i = 0; i < WORDS; ++i) lanes[i] = i;
  for (int64_t n = 0; n < COUNTERS; n += WORDS) {
    const Words counter = lanes + (block * COUNTERS + n);
    Words a = counter, b = counter >> 32, c = {}, d = {};
    for (int round = 0; round < ROUNDS; ++round) {
      const Words p = product(a, 0xd2511f53), q = product(c, 0xcd9e8d57);
      a = upper(q) ^ b ^ keys.first[round];
      c = upper(p) ^ d ^ keys.second[round];
      b = q;
      d = p;
    }
    *reinterpret_cast<Words*>(to + 4 * n) = (a & 0xffffffff) | b << 32;
    *reinterpret_cast<Words*>(to + 4 * (n + COUNTERS)) = (c & 0xffffffff) | d << 32;
  }
}

struct Mask {
  uint64_t seed;
  int32_t dropped;  // numbers of 2^16
  float scale;      // of what is kept
  int64_t count, threads;
};

int64_t threads_for(const Mask& m) { return std::max<int64_t>(1, std::min(m.threads, m.count / (BLOCK * LEAST_BLOCKS))); }

inline Whole kept(const uint16_t* numbers, int32_t dropped) {  // all bits, or none
  return reinterpret_cast<Whole>(reinterpret_cast<Bits>(load(numbers)) >> 16) >= dropped;
}

// `of_block(numbers, first)` for all blocks but the last one, if that is none of BLOCK, which `of_last(numbers, first, count)` is
// called for.
template <class OfBlock, class OfLast>
void in_blocks(const Mask& m, OfBlock of_block, OfLast of_last) {
  const int64_t whole = m.count / BLOCK;
#pragma omp parallel num_threads(threads_for(m))
  {
    alignas(64) uint16_t numbers[BLOCK];
    const Keys keys(m.seed);
    const Share mine = share(whole);
    for (int64_t block = mine.first; block < mine.last; ++block) {
      draw(keys, block, numbers);
      of_block(numbers, block * BLOCK);
    }
    if (mine.last == whole && whole * BLOCK < m.count) {
      draw(keys, whole, numbers);
      of_last(numbers, whole * BLOCK, m.count - whole * BLOCK);
    }
  }
}

template <bool RELU, class N>
void drop(const Mask& m, const N* x, N* to) {
  const auto scale = reinterpret_cast<Whole>(Vector{} + m.scale);
  auto of_block = [&](const uint16_t* numbers, const N* from, N* out) {
    for (int64_t i = 0; i < BLOCK; i += LANES) {
      const Vector given = RELU ? larger(Vector{}, load(from + i)) : load(from + i);
      store(out + i, given * reinterpret_cast<Vector>(kept(numbers + i, m.dropped) & scale));
    }
  };
  in_blocks(
      m, [&](const uint16_t* numbers, int64_t first) { of_block(numbers, x + first, to + first); },
      [&](const uint16_t* numbers, int64_t first, int64_t count) {
        N rest[BLOCK] = {};
        std::copy_n(x + first, count, rest);
        of_block(numbers, rest, rest);
        std::copy_n(rest, count, to + first);
      });
}

// What is not 0 of y was kept, and was above 0.
template <class N>
void drop_relu_backward(const Mask& m, const N* gradient, const N* y, N* to) {
  auto some = [&](const N* from, const N* kept, N* out) {
    const Whole none = load(kept) <= Vector{};
    store(out, reinterpret_cast<Vector>(~none & reinterpret_cast<Whole>(load(from) * m.scale)));
  };
  const int64_t whole = m.count / LANES, rest = m.count % LANES;
#pragma omp parallel num_threads(threads_for(m))
  {
    const Share mine = share(whole);
    for (int64_t i = mine.first * LANES; i < mine.last * LANES; i += LANES) some(gradient + i, y + i, to + i);
    if (mine.last == whole && rest) {
      N last[2][LANES] = {};
      std::copy_n(gradient + whole * LANES, rest, last[0]);
      std::copy_n(y + whole * LANES, rest, last[1]);
      some(last[0], last[1], last[0]);
      std::copy_n(last[0], rest, to + whole * LANES);
    }
  }
}

}  // namespace

// 1 for what is kept, else 0.
extern "C" void keep(const Mask* mask, int8_t* to) {
  const Mask& m = *mask;
  auto of_block = [&](const uint16_t* numbers, int8_t* out) {
    for (int64_t i = 0; i < BLOCK; i += LANES)
      *reinterpret_cast<Bytes*>(out + i) = __builtin_convertvector(kept(numbers + i, m.dropped) & 1, Bytes);
  };
  in_blocks(
      m, [&](const uint16_t* numbers, int64_t first) { of_block(numbers, to + first); },
      [&](const uint16_t* numbers, int64_t first, int64_t count) {
        int8_t rest[BLOCK];
        of_block(numbers, rest);
        std::copy_n(rest, count, to + first);
      });
}

// What is kept, times the scale; of x, or of what is above 0 of it, whose gradient needs no mask.
#define ENTRY_POINTS(NAME, N)                                                                                   \
  extern "C" void drop_##NAME(const Mask* mask, const N* x, N* to) { drop<false>(*mask, x, to); }                \
  extern "C" void drop_relu_##NAME(const Mask* mask, const N* x, N* to) { drop<true>(*mask, x, to); }            \
  extern "C" void drop_relu_backward_##NAME(const Mask* mask, const N* gradient, const N* y, N* to) {            \
    drop_relu_backward(*mask, gradient, y, to);                                                                 \
  }

ENTRY_POINTS(float32, float)
ENTRY_POINTS(bfloat16, bfloat16)
