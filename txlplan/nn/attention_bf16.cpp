// As attention.cpp, of operands of bf16: relative attention over memory and segment, forward and backward, a block of queries
// of one head of one sequence at a time. Scores and sums are of fp32; what is multiplied is rounded to bf16.
//
// B sequences, T queries, S = memory + T keys, H heads, K width of a head, KP that in whole STEPs. A block has t rows, made up
// to whole STEPs by rows before its first query, which see nothing. A band is STEP rows of a block. No query sees later keys.
//
// Products C [M, N] += A [M, D] B [D, N] read A in rows, of any alignment, and B as pairs: row d / 2 holds B[d] and B[d + 1] of
// each column next to one another, as units for bf16 take them. Long such rows are cut into panels of STEP columns.
//
// Position scores have a column for each distance from the farthest of the rows on. Read with rows that are one element
// shorter, from the last on, row i begins one distance later than row i - 1: the relative shift moves nothing. So are gradients
// of scores read as those of position scores, with zeros before each row.
//
// Forward takes a band and STEP keys at a time, whose scores stay in the nearest cache. Tiles are slow to load across its
// lines, and leave the sum with what is shifted to registers. What is subtracted from a row's scores is the largest of the
// first.
//
// Probabilities are kept before they are divided by their row's sum: that is one step of a later sum over them. Rows are kept
// in pairs, as backward multiplies them, made up to whole STEPs, with the inverse of their two sums at the end.

namespace {

static_assert(QUERIES % STEP == 0, "a block begins where a panel of distances does");
constexpr float LOG2_E = 1.44269504f;
constexpr float MOST_SUM = 1e12f;  // of a row's exponentials, whose squares backward can divide by
constexpr int64_t DISTANCES = 3 * STEP;  // whose scores of a band are there at a time: of two panels, and of the first again
constexpr int64_t TAKEN = 16 * STEP;     // keys whose values are multiplied at a time

struct NothingTiny {  // numbers that a CPU is slow with are zero to a thread, while it is there
  const unsigned before = _mm_getcsr();
  NothingTiny() { _mm_setcsr(before | 0x8040); }
  ~NothingTiny() { _mm_setcsr(before); }
};

// Rows of so many that do not share a set of the cache.
inline int64_t odd_lines(int64_t n) { return (rounded(n, LINE) / LINE | 1) * LINE; }

// --- products ---

struct Sums {  // rows, and panels of STEP columns, are so many apart
  float* first = nullptr;
  int64_t row = 0, panel = 0;

  Sums at(int64_t i, int64_t n) const { return {first ? first + i * row + n * panel : nullptr, row, panel}; }
};

#ifdef TILES
#define TAKE_SUM(tile, place) \
  if (from.first) _tile_loadd(tile, from.first + (place), 4 * from.row); else _tile_zero(tile)

// C [STEP, STEP]; rows of operands are so many bytes apart.
inline void tiled(int64_t depth, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row, Sums from, Sums c) {
  const bfloat16* below = a + 8 * a_row;  // bytes / sizeof, 16 rows
  TAKE_SUM(0, 0);
  TAKE_SUM(1, LINE);
  TAKE_SUM(2, 16 * from.row);
  TAKE_SUM(3, 16 * from.row + LINE);
  for (int64_t d = 0; d < depth; d += STEP) {
    _tile_loadd(4, a, a_row); _tile_loadd(6, b, b_row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + LINE, b_row);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, below, a_row);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    a += STEP, below += STEP, b += 4 * b_row;
  }
  float* c_below = c.first + 16 * c.row;
  _tile_stored(0, c.first, 4 * c.row); _tile_stored(1, c.first + LINE, 4 * c.row);
  _tile_stored(2, c_below, 4 * c.row); _tile_stored(3, c_below + LINE, 4 * c.row);
}

// C [rows, STEP] of a depth of 2 STEPs, for which all of B is in tiles.
inline void tiled_twice(int64_t rows, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row, Sums from, Sums c) {
  const uint32_t* later = b + 4 * b_row;
  _tile_loadd(4, b, b_row);
  _tile_loadd(5, b + LINE, b_row);
  _tile_loadd(6, later, b_row);
  _tile_loadd(7, later + LINE, b_row);
  for (int64_t m = 0; m < rows; m += 16, a += 8 * a_row, c = c.at(16, 0), from = from.at(16, 0)) {
    TAKE_SUM(0, 0);
    TAKE_SUM(1, LINE);
    _tile_loadd(2, a, a_row);
    _tile_dpbf16ps(0, 2, 4);
    _tile_dpbf16ps(1, 2, 5);
    _tile_loadd(3, a + STEP, a_row);
    _tile_dpbf16ps(0, 3, 6);
    _tile_dpbf16ps(1, 3, 7);
    _tile_stored(0, c.first, 4 * c.row);
    _tile_stored(1, c.first + LINE, 4 * c.row);
  }
}
#undef TAKE_SUM
#else
inline void tiled_twice(int64_t, const bfloat16*, int64_t, const uint32_t*, int64_t, Sums, Sums) {}
inline void tiled(int64_t, const bfloat16*, int64_t, const uint32_t*, int64_t, Sums, Sums) {}
#endif

inline __m512bh pairs(__m512i bits) { return reinterpret_cast<__m512bh>(bits); }

// C [QUERIES, STEP].
template <int MANY>
inline void few(int64_t depth, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row, Sums from, Sums c) {
  __m512 sums[MANY][2];
  for (int i = 0; i < MANY; ++i)
    for (int v = 0; v < 2; ++v)
      sums[i][v] = from.first ? _mm512_loadu_ps(from.first + i * from.row + v * LINE) : _mm512_setzero_ps();
  for (int64_t d = 0; d < depth / 2; ++d) {
    const __m512bh first = pairs(_mm512_loadu_si512(b + d * b_row)), second = pairs(_mm512_loadu_si512(b + d * b_row + LINE));
    for (int i = 0; i < MANY; ++i) {
      int32_t pair;
      std::memcpy(&pair, a + i * a_row + 2 * d, 4);
      const __m512bh each = pairs(_mm512_set1_epi32(pair));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], each, first);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], each, second);
    }
  }
  for (int i = 0; i < MANY; ++i)
    for (int v = 0; v < 2; ++v) _mm512_storeu_ps(c.first + i * c.row + v * LINE, sums[i][v]);
}

// C [rows, columns] = A [rows, depth] B, added to `from` if there is one, all in whole STEPs; rows of B, and STEP columns of
// it, are so many pairs apart.
void multiply(int64_t rows, int64_t columns, int64_t depth, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row,
              int64_t b_panel, Sums from, Sums c) {
  if (has_tiles) asm volatile("" ::: "memory");  // what tiles read is not known to be read
  for (int64_t n = 0; n < columns; n += STEP, b += b_panel, from = from.at(0, 1), c = c.at(0, 1)) {
    if (has_tiles && depth == 2 * STEP) {
      tiled_twice(rows, a, 2 * a_row, b, 4 * b_row, from, c);
    } else if (has_tiles) {
      for (int64_t m = 0; m < rows; m += STEP)
        tiled(depth, a + m * a_row, 2 * a_row, b, 4 * b_row, from.at(m, 0), c.at(m, 0));
    } else {
      constexpr int MANY = 8;
      static_assert(STEP % MANY == 0);
      for (int64_t m = 0; m < rows; m += MANY) few<MANY>(depth, a + m * a_row, a_row, b, b_row, from.at(m, 0), c.at(m, 0));
    }
  }
}
// --- rows of bf16, and pairs of them ---

inline __m512 low(__m512i two) { return _mm512_castsi512_ps(_mm512_slli_epi32(two, 16)); }
inline __m512 high(__m512i two) { return _mm512_castsi512_ps(_mm512_and_si512(two, _mm512_set1_epi32(0xffff0000))); }
inline __m512i both(__m512i of_low, __m512i of_high) {  // the low half of the one and the high one of the other
  return _mm512_ternarylogic_epi32(of_low, of_high, _mm512_set1_epi32(0xffff0000), 0xd8);
}
inline __m512i rounded_pairs(__m512 a, __m512 b) {  // as numbers are
  alignas(64) static constexpr uint16_t EACH[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(EACH), narrowed(a, b));
}
inline __m512 wide16(const bfloat16* from, __mmask16 which) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(which, from)), 16));
}
// A whole line of a cache, past it: to be read when much else was; streamed() before another thread reads it.
inline void stream(void* to, __m512i line) { _mm512_stream_si512(static_cast<__m512i*>(to), line); }
inline void streamed() { _mm_sfence(); }

constexpr int64_t AHEAD = 32;  // rows that are fetched: a CPU does not by itself where they lie far apart
inline void fetch(Rows<const bfloat16> from, int64_t row, int64_t n, int64_t K) {
  for (int64_t k = 0; k < K && row < n; k += STEP) _mm_prefetch(from[row] + k, _MM_HINT_T0);
}

// Rows [n, K] as the right operand of products over K: panels [KP / 2, STEP] of rows, the last ones zero.
void turned(Rows<const bfloat16> from, int64_t n, int64_t K, int64_t KP, uint32_t* to) {
  for (int64_t row = 0; row < rounded(n, STEP); row += LINE) {
    for (int64_t i = 0; i < LINE; ++i) fetch(from, row + i + AHEAD, n, K);
    for (int64_t k = 0; k < KP; k += STEP) {
      __m512i block[16];
      for (int64_t i = 0; i < LINE; ++i)
        block[i] = row + i < n ? numbers(from[row + i] + k, K - k) : _mm512_setzero_si512();
      transpose(block);
      uint32_t* out = to + row / STEP * KP / 2 * STEP + k / 2 * STEP + row % STEP;
      for (int64_t i = 0; i < LINE; ++i) _mm512_storeu_si512(out + i * STEP, block[i]);
    }
  }
}

// Rows [n, K] as the right operand of products over n: [n / 2, KP], zero where there are none.
void paired(Rows<const bfloat16> from, int64_t n, int64_t K, int64_t KP, uint32_t* to) {
  for (int64_t row = 0; row < rounded(n, STEP); row += 2, to += KP) {
    for (int64_t i = 0; i < 2; ++i) fetch(from, row + i + AHEAD, n, K);
    for (int64_t k = 0; k < KP; k += STEP) {
      const __m512i a = row < n ? numbers(from[row] + k, K - k) : _mm512_setzero_si512();
      const __m512i b = row + 1 < n ? numbers(from[row + 1] + k, K - k) : _mm512_setzero_si512();
      __m512i first, second;
      paired(a, b, first, second);
      _mm512_storeu_si512(to + k, first), _mm512_storeu_si512(to + k + LINE, second);
    }
  }
}

// Rows [t, KP] as columns [KP, QUERIES].
void as_columns(const bfloat16* from, int64_t t, int64_t KP, bfloat16* to) {
  for (int64_t row = 0; row < t; row += STEP)
    for (int64_t k = 0; k < KP; k += STEP) {
      __m512i first[16], second[16];
      for (int64_t i = 0; i < LINE; ++i) {
        const bfloat16* two = from + (row + 2 * i) * KP + k;
        paired(_mm512_loadu_si512(two), _mm512_loadu_si512(two + KP), first[i], second[i]);
      }
      transpose(first), transpose(second);
      for (int64_t i = 0; i < LINE; ++i) {
        _mm512_storeu_si512(to + (k + i) * QUERIES + row, first[i]);
        _mm512_storeu_si512(to + (k + LINE + i) * QUERIES + row, second[i]);
      }
    }
}

// Panels [KP, STEP] of columns, as `n` rows [K], times `scale`.
void put_columns(const float* panels, int64_t n, int64_t K, int64_t KP, float scale, Rows<bfloat16> to) {
  const __m512 times = _mm512_set1_ps(scale);
  for (int64_t row = 0; row < n; row += LINE)
    for (int64_t k = 0; k < K; k += STEP) {
      const float* from = panels + (row / STEP * KP + k) * STEP + row % STEP;
      __m512i first[16], second[16];
      for (int64_t i = 0; i < LINE; ++i)
        first[i] = _mm512_loadu_si512(from + i * STEP), second[i] = _mm512_loadu_si512(from + (LINE + i) * STEP);
      transpose(first), transpose(second);
      for (int64_t i = 0; i < std::min(LINE, n - row); ++i) {
        const __m512 a = _mm512_mul_ps(_mm512_castsi512_ps(first[i]), times);
        const __m512 b = _mm512_mul_ps(_mm512_castsi512_ps(second[i]), times);
        bfloat16* at = to[row + i] + k;
        const bool whole = K - k >= STEP && reinterpret_cast<uintptr_t>(at) % 64 == 0;
        whole ? stream(at, narrowed(a, b)) : _mm512_mask_storeu_epi16(at, first_of(K - k), narrowed(a, b));
      }
    }
}

// --- blocks ---

struct Band {  // STEP rows of a block
  Pair at;
  int64_t first, none, keys, columns, far;  // `none` rows before query `first`; far: nearest distance
  const bfloat16 *content, *position;
};

struct PairedBlock : Block {
  using Block::Block;
  int64_t rows() const { return rounded(queries(), STEP); }
  int64_t none() const { return rows() - queries(); }  // rows before the first query
  int64_t columns() const { return rounded(keys, STEP); }
  int64_t kept_row() const { return odd_lines(columns() + 2); }  // in pairs
  int64_t kept() const { return rows() / 2 * kept_row(); }
};

int64_t kept_of_head(const Sizes& m) {
  int64_t all = 0;
  for (int64_t n = 0; n < blocks_of(m); ++n) all += PairedBlock(m, n).kept();
  return all;
}

struct SeenKeys : Seen {
  using Seen::Seen;
  __mmask16 of(int64_t column) const {  // 16 keys
    const int64_t from = std::max<int64_t>(first - column, 0), to = std::min<int64_t>(last - column, LINE);
    return from < to ? (0xffffu >> (LINE - to)) & (0xffffu << from) : 0;
  }
};

// 2^x, to 1e-4 relative: a twentieth of what rounding to bf16 changes.
inline __m512 power(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 1);  // from 0 to 1
  __m512 p = _mm512_set1_ps(7.802454e-2f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.2606712e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9583355e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.9992522e-1f));
  return _mm512_scalef_ps(p, x);
}

inline __mmask16 kept16(const int8_t* keep, int64_t column, int64_t keys) {  // by dropout
  const __mmask16 there = first_of(std::min<int64_t>(keys - column, LINE));
  const __m128i bytes = _mm_maskz_loadu_epi8(there, keep + column);
  return _mm_test_epi8_mask(bytes, bytes);
}

struct Work : Layout<bfloat16> {  // of one thread
  const bool backward, scoring;  // scoring: scores are computed
  const int64_t KP = rounded(K, STEP), columns = rounded(m.keys, STEP);
  const int64_t score_row = odd_lines(columns + 1);
  const int64_t pair_row = odd_lines(QUERIES + columns), number_row = 2 * pair_row;  // with zeros before
  const float scale = 1.0f / std::sqrt(static_cast<float>(K));
  uint32_t *keys_turned, *distances_turned, *values_turned, *keys, *values, *distances;
  bfloat16 *content, *position, *of_mixed, *turning, *numbers_of;  // of probabilities, or of gradients of scores
  uint32_t *content_pairs, *position_pairs, *weights, *again;
  float *biases, *scores, *distant, *mixed, *mixed_too, *inverse, *sums, *most;
  SeenKeys* seen;
  int64_t begins[STEP];  // of keys that a row sees, the first STEP
  std::vector<SeenKeys> seen_by;  // by queries
  float *of_values, *of_keys, *of_distances, *of_biases;

  Work(const Sizes& sizes, const Operands<bfloat16>& operands, bool is_backward, bool is_scoring, Arena& arena)
      : Layout{sizes, operands}, backward(is_backward), scoring(is_scoring) {
    lay(arena);
    arena.open();
    lay(arena);
    for (int64_t i = 0; i < m.masks * m.queries && scoring; ++i)
      seen_by.emplace_back(of.masked + i * m.keys, m.keys - m.queries + i % m.queries + 1);
    if (!backward) return;
    std::fill(numbers_of, numbers_of + STEP * number_row, 0);
    std::fill(position_pairs, position_pairs + QUERIES / 2 * pair_row, 0);
  }
  void lay(Arena& arena) {
    const int64_t operand = columns * KP / 2;
    if (scoring) keys_turned = arena.take<uint32_t>(operand), distances_turned = arena.take<uint32_t>(operand);
    content = arena.take<bfloat16>(QUERIES * KP), position = arena.take<bfloat16>(QUERIES * KP);
    numbers_of = arena.take<bfloat16>(STEP * (backward ? number_row : TAKEN));
    scores = arena.take<float>(STEP * (backward ? score_row : STEP));
    biases = arena.take<float>(2 * KP), inverse = arena.take<float>(QUERIES), mixed = arena.take<float>(STEP * KP);
    sums = arena.take<float>(STEP * LINE), most = arena.take<float>(STEP), seen = arena.take<SeenKeys>(STEP);
    if (scoring) distant = arena.take<float>((STEP + 1) * DISTANCES);
    if (!backward) {
      values = arena.take<uint32_t>(operand);
      return;
    }
    values_turned = arena.take<uint32_t>(operand), keys = arena.take<uint32_t>(operand);
    distances = arena.take<uint32_t>(operand), mixed_too = arena.take<float>(STEP * KP);
    of_keys = arena.take<float>(columns * KP), of_values = arena.take<float>(columns * KP);
    of_distances = arena.take<float>(columns * KP), of_biases = arena.take<float>(2 * KP);
    of_mixed = arena.take<bfloat16>(QUERIES * KP), turning = arena.take<bfloat16>(QUERIES * KP);
    content_pairs = arena.take<uint32_t>(QUERIES / 2 * pair_row), position_pairs = arena.take<uint32_t>(QUERIES / 2 * pair_row);
    if (of.keep) weights = arena.take<uint32_t>(QUERIES / 2 * pair_row);
    again = arena.take<uint32_t>(PairedBlock(m, 0).kept());
  }

  void take_head(int64_t h) {
    for (int which = 0; which < 2; ++which) {
      std::memcpy(biases + which * KP, (which ? of.position_bias : of.content_bias) + h * K, K * sizeof(float));
      std::fill(biases + which * KP + K, biases + (which + 1) * KP, 0.0f);
    }
    if (scoring) turned(distances_of(h), m.keys, K, KP, distances_turned);
    if (backward) paired(distances_of(h), m.keys, K, KP, distances);
  }
  void take_keys(Pair at) {
    if (scoring) turned(keys_of(at, KEY), m.keys, K, KP, keys_turned);
    if (backward) {
      turned(keys_of(at, VALUE), m.keys, K, KP, values_turned);
      paired(keys_of(at, KEY), m.keys, K, KP, keys);
    } else {
      paired(keys_of(at, VALUE), m.keys, K, KP, values);
    }
  }
  void take_queries(Pair at, const PairedBlock& block) {
    const int64_t first = block.none();
    std::fill(content, content + first * KP, 0), std::fill(position, position + first * KP, 0);
    const Rows<const bfloat16> queries = queries_of(at, block.first);
    for (int64_t i = 0; i < block.queries(); ++i) {
      const bfloat16* from = queries[i];
      fetch(queries, i + AHEAD, block.queries(), K);
      for (int64_t k = 0; k < KP; k += STEP) {
        const __mmask32 there = first_of(K - k);
        const __m512 a = wide16(from + k, there), c = wide16(from + k + LINE, there >> 16);
        auto put = [&](const float* bias, bfloat16* to) {
          const __m512 first = _mm512_add_ps(a, _mm512_loadu_ps(bias)), second = _mm512_add_ps(c, _mm512_loadu_ps(bias + LINE));
          _mm512_storeu_si512(to, narrowed(first, second));
        };
        put(biases + k, content + (first + i) * KP + k), put(biases + KP + k, position + (first + i) * KP + k);
      }
    }
  }

  Band band_of(Pair at, const PairedBlock& block, int64_t row) const {
    const int64_t none = row ? 0 : block.none(), after = block.rows() - row - STEP, keys = block.keys - after;
    const int64_t first = std::max(block.first, block.first - block.none() + row), far = m.queries - block.stop + after;
    return {at, first, none, keys, rounded(keys, STEP), far, content + row * KP, position + row * KP};
  }

  // Exponentials of a band's scores less one of their row: of two rows each in `kept`, unless null, and what dropout leaves of
  // them in `numbers_of`. Inverse sums in `inverse`.
  void attend(const Band& band, uint32_t* kept, int64_t kept_row) {
    const SeenKeys* of_queries = seen_by.data() + (m.masks > 1 ? band.at.b : 0) * m.queries + band.first;
    for (int64_t i = 0; i < STEP; ++i) {
      seen[i] = i < band.none ? SeenKeys() : of_queries[i - band.none];
      begins[i] = seen[i].first / STEP * STEP;
    }
    if (!tried(band, kept, kept_row, false)) tried(band, kept, kept_row, true);
    for (int64_t i = 0; i < STEP && kept; i += 2, kept += kept_row) {
      std::fill(kept + band.columns, kept + kept_row, 0);
      std::memcpy(kept + kept_row - 2, inverse + i, 2 * sizeof(float));
    }
  }

  // Exponentials less the largest of a row's scores among the first that it sees, or among `all`. False if others are so much
  // larger that this is to be done again.
  bool tried(const Band& band, uint32_t* kept, int64_t kept_row, bool all) {
    std::fill(most, most + STEP, -INFINITY);
    for (int64_t j = 0; j < band.columns && all; j += STEP) {
      score(band, j);
      for (int64_t i = band.none; i < STEP; ++i) most[i] = std::max(most[i], largest(i, j));
    }
    std::fill(sums, sums + STEP * LINE, 0.0f);
    int64_t begin = 0, end = band.keys;  // of keys that all rows see
    for (int64_t i = 0; i < STEP; ++i) begin = std::max(begin, seen[i].first), end = std::min(end, seen[i].last);
    for (int64_t j = 0; j < band.columns; j += STEP) {
      score(band, j);
      for (int64_t i = band.none; i < STEP && !all; ++i)
        if (begins[i] == j) most[i] = largest(i, j);
      const bool whole = begin <= j && j + STEP <= end;
      uint32_t* to = kept ? kept + j : nullptr;
      whole ? exponentials<true>(band, j, to, kept_row) : exponentials<false>(band, j, to, kept_row);
      if (backward || ((j + STEP) % TAKEN && j + STEP < band.columns)) continue;
      const int64_t from = j / TAKEN * TAKEN;
      const Sums so_far = {mixed, KP, STEP};
      multiply(STEP, KP, j + STEP - from, numbers_of, TAKEN, values + from / 2 * KP, KP, STEP, from ? so_far : Sums{}, so_far);
    }
    bool fine = true;
    for (int64_t i = 0; i < STEP; ++i) {
      const float sum = _mm512_reduce_add_ps(_mm512_loadu_ps(sums + i * LINE));
      inverse[i] = seen[i].first < seen[i].last ? 1.0f / sum : 0.0f;
      fine &= !(sum > MOST_SUM);
    }
    return fine;
  }

  // Of STEP keys from `j` on: of content, and of distances those that were not there for the keys before.
  void score(const Band& band, int64_t j) {
    const int64_t panel = KP / 2 * STEP;
    for (int64_t next = j ? j + STEP : 0; next < std::min(j + 2 * STEP, band.columns); next += STEP) {
      float* to = distant + next % (2 * STEP);
      const uint32_t* its_distances = distances_turned + (band.far + next) / STEP * panel;
      multiply(STEP, STEP, KP, band.position, KP, its_distances, STEP, panel, {}, {to, DISTANCES, STEP});
      for (int64_t i = 0; i < STEP && to == distant; ++i)  // which follows the other, too
        for (int64_t k = 0; k < STEP; k += LINE)
          _mm512_storeu_ps(to + i * DISTANCES + 2 * STEP + k, _mm512_loadu_ps(to + i * DISTANCES + k));
    }
    multiply(STEP, STEP, KP, band.content, KP, keys_turned + j / STEP * panel, STEP, panel, {}, {scores, STEP, STEP});
  }

  // Of STEP keys; WHOLE: all rows see them.
  template <bool WHOLE>
  void exponentials(const Band& band, int64_t j, uint32_t* kept, int64_t kept_row) const {
    const __m512 times = _mm512_set1_ps(scale * LOG2_E);
    const float *content_scores = scores, *position_scores = distant + j % (2 * STEP) + STEP - 1, *less = most;
    const bool drops = of.keep, forward = !backward;  // backward reads what is kept at once, and nothing else
    bfloat16* to = numbers_of + j % TAKEN;
    float* sum = sums;
    for (int64_t i = 0; i < STEP; i += 2) {
      __m512 e[2][2];
      for (int which = 0; which < 2; ++which) {
        const __m512 its_less = _mm512_set1_ps(less[i + which] * (scale * LOG2_E));
        for (int half = 0; half < 2; ++half) {
          const float* shifted = position_scores + which * (DISTANCES - 1) + half * LINE;
          const float* straight = content_scores + which * STEP + half * LINE;
          const __m512 x = _mm512_add_ps(_mm512_loadu_ps(straight), _mm512_loadu_ps(shifted));
          e[which][half] = power(_mm512_fmsub_ps(x, times, its_less));
          if (!WHOLE) e[which][half] = _mm512_maskz_mov_ps(seen[i + which].of(j + half * LINE), e[which][half]);
        }
      }
      content_scores += 2 * STEP, position_scores += 2 * (DISTANCES - 1);
      if (kept) {
        for (int half = 0; half < 2; ++half) {
          const __m512i two = rounded_pairs(e[0][half], e[1][half]);
          forward ? stream(kept + half * LINE, two) : _mm512_storeu_si512(kept + half * LINE, two);
        }
        kept += kept_row;
      }
      for (int which = 0; which < 2; ++which, sum += LINE, to += TAKEN) {
        __m512i rounded = narrowed(e[which][0], e[which][1]);
        _mm512_storeu_ps(sum, _mm512_dpbf16_ps(_mm512_loadu_ps(sum), pairs(rounded), pairs(_mm512_set1_epi16(0x3f80))));
        if (!forward) continue;
        if (drops) {
          const int8_t* keeps = keep(band.at, band.first + std::max<int64_t>(i + which - band.none, 0));
          const __mmask32 stay = kept16(keeps, j, m.keys) | static_cast<__mmask32>(kept16(keeps, j + LINE, m.keys)) << 16;
          rounded = _mm512_maskz_mov_epi16(stay, rounded);
        }
        _mm512_storeu_si512(to, rounded);
      }
    }
  }

  __m512 score_of(int64_t i, int64_t j, int64_t k) const {
    const float* shifted = distant + j % (2 * STEP) + i * (DISTANCES - 1) + STEP - 1;
    return _mm512_add_ps(_mm512_loadu_ps(scores + i * STEP + k), _mm512_loadu_ps(shifted + k));
  }
  float largest(int64_t i, int64_t j) const {
    __m512 all = _mm512_set1_ps(-INFINITY);
    for (int64_t k = 0; k < STEP; k += LINE) all = _mm512_mask_max_ps(all, seen[i].of(j + k), all, score_of(i, j, k));
    return _mm512_reduce_max_ps(all);
  }

  void forward(Pair at, bfloat16* out, uint32_t* kept) {
    take_keys(at);
    for (int64_t n = 0; n < blocks_of(m); ++n) {
      const PairedBlock block(m, n);
      take_queries(at, block);
      for (int64_t row = 0; row < block.rows(); row += STEP) {
        const Band band = band_of(at, block, row);
        attend(band, kept ? kept + row / 2 * block.kept_row() : nullptr, block.kept_row());
        for (int64_t i = band.none; i < STEP; ++i) {
          const float times = inverse[i] * m.kept_scale;
          put_row(mixed + i * KP, nullptr, times, out + in_mixed(at, band.first + i - band.none));
        }
      }
      if (kept) kept += block.kept();
    }
  }
  void put_row(const float* from, const float* too, float factor, bfloat16* to) const {  // of a head, `too` added
    const __m512 times = _mm512_set1_ps(factor);
    auto at = [&](int64_t k) {
      const __m512 x = _mm512_loadu_ps(from + k);
      return _mm512_mul_ps(too ? _mm512_add_ps(x, _mm512_loadu_ps(too + k)) : x, times);
    };
    for (int64_t k = 0; k < K; k += STEP) _mm512_mask_storeu_epi16(to + k, first_of(K - k), narrowed(at(k), at(k + LINE)));
  }

  // Adds to the gradients of distances and biases, here; writes the others.
  void back(Pair at, const uint32_t* kept, const bfloat16* of_out, const Gradients<bfloat16>& to) {
    take_keys(at);
    for (int64_t n = 0; n < blocks_of(m); ++n) {
      const PairedBlock block(m, n);
      take_queries(at, block);
      for (int64_t row = 0; row < block.rows() && !kept; row += STEP)
        attend(band_of(at, block, row), again + row / 2 * block.kept_row(), block.kept_row());
      back(at, block, kept ? kept : again, of_out, to);
      if (kept) kept += block.kept();
    }
    put_columns(of_keys, m.keys, K, KP, scale, keys_in(to, at, KEY));
    put_columns(of_values, m.keys, K, KP, m.kept_scale, keys_in(to, at, VALUE));
  }
  void back(Pair at, const PairedBlock& block, const uint32_t* kept, const bfloat16* of_out, const Gradients<bfloat16>& to) {
    const int64_t t = block.rows(), none = block.none(), far = m.queries - block.stop, panel = KP * STEP;
    const bool last = block.stop == m.queries;  // comes first, and sees every key
    std::fill(of_mixed, of_mixed + none * KP, 0);
    const Rows<const bfloat16> its_out = {of_out + in_mixed(at, block.first), apart()};
    for (int64_t i = none; i < t; ++i) {
      fetch(its_out, i - none + AHEAD, block.queries(), K);
      for (int64_t k = 0; k < KP; k += STEP) _mm512_storeu_si512(of_mixed + i * KP + k, numbers(its_out[i - none] + k, K - k));
    }
    for (int64_t row = 0; row < t; row += STEP) {
      const Sums of_probabilities = {scores, score_row, STEP};
      multiply(STEP, block.columns(), KP, of_mixed + row * KP, KP, values_turned, STEP, panel / 2, {}, of_probabilities);
      for (int64_t pair = row / 2; pair < (row + STEP) / 2; ++pair) {
        const uint32_t* p = kept + pair * block.kept_row();
        std::memcpy(inverse + 2 * pair, p + block.kept_row() - 2, 2 * sizeof(float));
        const int8_t* keeps[2] = {nullptr, nullptr};
        for (int which = 0; which < 2 && of.keep; ++which)
          keeps[which] = keep(at, block.first + std::max<int64_t>(2 * pair + which - none, 0));
        of.keep ? unsoftmaxed<true>(pair, p, keeps, block) : unsoftmaxed<false>(pair, p, keeps, block);
      }
      const bfloat16* gradients = numbers_of + STEP;
      const int64_t after = t - row - STEP, columns = block.columns() - after;
      const uint32_t* its_distances = distances + (far + after) / 2 * KP;
      multiply(STEP, KP, columns, gradients, number_row, keys, KP, STEP, {}, {mixed, KP, STEP});
      multiply(STEP, KP, columns, gradients - (STEP - 1), number_row + 1, its_distances, KP, STEP, {}, {mixed_too, KP, STEP});
      sum_rows(mixed, STEP, of_biases), sum_rows(mixed_too, STEP, of_biases + KP);
      for (int64_t i = std::max(none, row); i < row + STEP; ++i)
        put_row(mixed + (i - row) * KP, mixed_too + (i - row) * KP, scale, queries_in(to, at, block.first)[i - none]);
    }
    for (int64_t i = none; i < t; ++i)
      for (int64_t k = 0; k < KP; k += STEP) {
        bfloat16* of = of_mixed + i * KP + k;
        const __m512i x = _mm512_loadu_si512(of);
        const __m512 times = _mm512_set1_ps(inverse[i]);
        auto each = [&](__m256i half) {
          return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)), times);
        };
        _mm512_storeu_si512(of, narrowed(each(_mm512_castsi512_si256(x)), each(_mm512_extracti64x4_epi64(x, 1))));
      }
    auto add = [&](const bfloat16* rows, const uint32_t* right, int64_t row, float* sum, bool adds) {
      as_columns(rows, t, KP, turning);
      const Sums all = {sum, STEP, panel};
      multiply(KP, block.columns(), t, turning, QUERIES, right, row, STEP, adds ? all : Sums{}, all);
    };
    const int64_t before = t - 1;
    of.keep ? add(of_mixed, weights, pair_row, of_values, !last) : add(of_mixed, kept, block.kept_row(), of_values, !last);
    add(content, content_pairs, pair_row, of_keys, !last);
    add(position, position_pairs + QUERIES - before, pair_row + 2, of_distances + far / STEP * panel, true);
  }
  void sum_rows(const float* from, int64_t rows, float* sum) const {
    for (int64_t k = 0; k < KP; k += LINE) {
      __m512 all = _mm512_setzero_ps();
      for (int64_t i = 0; i < rows; ++i) all = _mm512_add_ps(all, _mm512_loadu_ps(from + i * KP + k));
      _mm512_storeu_ps(sum + k, _mm512_fmadd_ps(all, _mm512_set1_ps(scale), _mm512_loadu_ps(sum + k)));
    }
  }
  // Gradients of two rows' scores, from those of probabilities: as numbers, in pairs, and in pairs of which the second is of
  // the next key: rows of distances. And what dropout left of probabilities, in pairs, if it DROPS.
  template <bool DROPS>
  void unsoftmaxed(int64_t pair, const uint32_t* p, const int8_t* const (&keeps)[2], const PairedBlock& block) {
    const float *first = scores + 2 * pair % STEP * score_row, *second = first + score_row;
    uint32_t *of_content = content_pairs + pair * pair_row, *of_position = position_pairs + pair * pair_row + QUERIES;
    uint32_t* left = DROPS ? weights + pair * pair_row : nullptr;
    bfloat16 *to = numbers_of + 2 * pair % STEP * number_row + STEP, *below = to + number_row;
    const int64_t columns = block.columns(), all = m.keys;
    const int8_t *keep_first = keeps[0], *keep_second = keeps[1];
    auto gradient = [=](const float* row, const int8_t* keep, int64_t j) {
      const __m512 x = _mm512_loadu_ps(row + j);
      return DROPS ? _mm512_maskz_mov_ps(kept16(keep, j, all), x) : x;
    };
    __m512 sum_first = _mm512_setzero_ps(), sum_second = _mm512_setzero_ps();
    for (int64_t j = 0; j < columns; j += LINE) {
      _mm_prefetch(p + j + 64 * LINE, _MM_HINT_T0);  // of later rows, which follow
      const __m512i two = _mm512_loadu_si512(p + j);
      sum_first = _mm512_fmadd_ps(gradient(first, keep_first, j), low(two), sum_first);
      sum_second = _mm512_fmadd_ps(gradient(second, keep_second, j), high(two), sum_second);
      if (!DROPS) continue;
      const __m512i of_first = _mm512_maskz_mov_epi32(kept16(keep_first, j, all), two);
      _mm512_storeu_si512(left + j, both(of_first, _mm512_maskz_mov_epi32(kept16(keep_second, j, all), two)));
    }
    const float inverses[2] = {inverse[2 * pair], inverse[2 * pair + 1]};
    auto less = [=, this](float each, __m512 sum) {
      return _mm512_set1_ps(each * (each * _mm512_reduce_add_ps(sum)) * m.kept_scale);
    };
    const __m512 less_first = less(inverses[0], sum_first), less_second = less(inverses[1], sum_second);
    const __m512 times_first = _mm512_set1_ps(inverses[0] * m.kept_scale);
    const __m512 times_second = _mm512_set1_ps(inverses[1] * m.kept_scale);
    __m512i before = _mm512_setzero_si512();
    for (int64_t j = 0; j < columns; j += STEP) {
      __m512 x[2], y[2];
      for (int half = 0; half < 2; ++half) {
        const int64_t column = j + half * LINE;
        const __m512i two = _mm512_loadu_si512(p + column);
        x[half] = _mm512_mul_ps(low(two), _mm512_fmsub_ps(gradient(first, keep_first, column), times_first, less_first));
        y[half] = _mm512_mul_ps(high(two), _mm512_fmsub_ps(gradient(second, keep_second, column), times_second, less_second));
        const __m512i found = rounded_pairs(x[half], y[half]);
        _mm512_storeu_si512(of_content + column, found);
        _mm512_storeu_si512(of_position + column - LINE, both(before, _mm512_alignr_epi32(found, before, 1)));
        before = found;
      }
      _mm512_storeu_si512(to + j, narrowed(x[0], x[1]));
      _mm512_storeu_si512(below + j, narrowed(y[0], y[1]));
    }
    _mm512_storeu_si512(of_position + columns - LINE, both(before, _mm512_alignr_epi32(_mm512_setzero_si512(), before, 1)));
  }
};

}  // namespace

extern "C" int uses_tiles() { return has_tiles; }

// Of what `attend` keeps, numbers of bf16.
extern "C" int64_t kept_elements(const Sizes* m) { return 2 * m->sequences * m->heads * kept_of_head(*m); }

// Into `out` [B, T, H, K], and where it is not null into `kept` probabilities.
extern "C" void attend(const Sizes* sizes, const Operands<bfloat16>* of, bfloat16* out, uint32_t* kept) {
  const Sizes& m = *sizes;
  const int64_t each = kept_of_head(m);
#pragma omp parallel num_threads(m.threads)
  {
    Arena arena;
    Tiles tiles;
    NothingTiny nothing_tiny;
    Work work(m, *of, false, true, arena);
    const Share mine = share(m.heads * m.sequences);
    for (int64_t i = mine.first; i < mine.last; ++i) {
      const Pair at = {i % m.sequences, i / m.sequences};
      if (i == mine.first || at.b == 0) work.take_head(at.h);
      work.forward(at, out, kept ? kept + i * each : nullptr);
    }
    streamed();
  }
}

// Gradients of what `of` names, given that of what `attend` wrote into `out`, and what it kept, or null: it is computed again.
extern "C" void attend_backward(const Sizes* sizes, const Operands<bfloat16>* of, const uint32_t* kept, const bfloat16* of_out,
                                const Gradients<bfloat16>* to) {
  const Sizes& m = *sizes;
  const int64_t K = m.head, KP = rounded(K, STEP), kept_each = kept_of_head(m);
  const int64_t distances = rounded(m.keys, STEP) * KP, each = distances + 2 * KP;
  std::vector<float> parts;  // of heads that several threads share: of each thread its first and its last
  std::vector<int64_t> owners;
  auto put = [&](int64_t h, const float* of_distances, const float* of_biases) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(K));
    put_columns(of_distances, m.keys, K, KP, scale, {to->distances + h * K, m.heads * K});
    std::memcpy(to->content_bias + h * K, of_biases, K * sizeof(float));
    std::memcpy(to->position_bias + h * K, of_biases + KP, K * sizeof(float));
  };
#pragma omp parallel num_threads(m.threads)
  {
#pragma omp single
    {
      owners.assign(2 * omp_get_num_threads(), -1);
      if (m.heads % omp_get_num_threads()) parts.resize(owners.size() * each);
    }
    Arena arena;
    Tiles tiles;
    NothingTiny nothing_tiny;
    Work work(m, *of, true, !kept, arena);
    const Share mine = share(m.heads * m.sequences);
    auto finish = [&](int64_t h) {
      const bool begun = h * m.sequences >= mine.first;
      if (begun && (h + 1) * m.sequences <= mine.last) return put(h, work.of_distances, work.of_biases);
      const int64_t place = 2 * omp_get_thread_num() + begun;
      owners[place] = h;
      std::copy(work.of_distances, work.of_distances + distances, parts.data() + place * each);
      std::copy(work.of_biases, work.of_biases + 2 * KP, parts.data() + place * each + distances);
    };
    for (int64_t i = mine.first; i < mine.last; ++i) {
      const Pair at = {i % m.sequences, i / m.sequences};
      if (i == mine.first || at.b == 0) {
        work.take_head(at.h);
        std::fill(work.of_distances, work.of_distances + distances, 0.0f);
        std::fill(work.of_biases, work.of_biases + 2 * KP, 0.0f);
      }
      work.back(at, kept ? kept + i * kept_each : nullptr, of_out, *to);
      if (i + 1 == mine.last || at.b + 1 == m.sequences) finish(at.h);
    }
    streamed();
#pragma omp barrier
#pragma omp for
    for (int64_t h = 0; h < m.heads; ++h) {
      float* sum = nullptr;
      for (size_t place = 0; place < owners.size(); ++place) {
        if (owners[place] != h) continue;
        float* part = parts.data() + place * each;
        if (sum)
          for (int64_t n = 0; n < each; ++n) sum[n] += part[n];
        else
          sum = part;
      }
      if (sum) put(h, sum, sum + distances), streamed();
    }
    streamed();
  }
}
