// As attention.cpp, of operands of bf16: relative attention over memory and segment, forward and backward, a block of queries
// of one head of one sequence at a time. Scores and sums are of fp32; what is multiplied is rounded to bf16.
//
// B sequences, T queries, S = memory + T keys, H heads, K width of a head, KP that in whole STEPs. A block has t rows, made up
// to whole STEPs by rows before its first query, which see nothing.
//
// Products C [M, N] += A [M, D] B [D, N] read A in rows, of any alignment, and B as pairs: row d / 2 holds B[d] and B[d + 1] of
// each column next to one another, as units for bf16 take them. Long such rows are cut into panels of STEP columns.
//
// Position scores of t queries have a column for each distance from the farthest of the block on. Read with rows that are one
// element shorter, from the (t - 1)th on, row i begins one distance later than row i - 1: the relative shift moves nothing, and
// content scores are added in place. So are gradients of scores read as those of position scores, with zeros before each row.
//
// Probabilities are kept before they are divided by their row's sum: that is one step of a later sum over them. Rows are kept
// in pairs, as backward multiplies them, with the inverse of their two sums at the end.

namespace {

static_assert(QUERIES % STEP == 0, "a block begins where a panel of distances does");
constexpr float LOWEST = -100.0f;  // of exponents of 2: nothing so small that a CPU is slow with it
constexpr float LOG2_E = 1.44269504f;

// Rows of so many that do not share a set of the cache.
inline int64_t odd_lines(int64_t n) { return (rounded(n, LINE) / LINE | 1) * LINE; }

// --- products ---

#ifdef TILES
// C [STEP, STEP]; rows of operands are so many bytes apart.
template <bool ADD>
inline void tiled(int64_t depth, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row, float* c, int64_t c_row) {
  const bfloat16* below = a + 8 * a_row;  // bytes / sizeof, 16 rows
  float* c_below = c + 4 * c_row;
  if constexpr (ADD) {
    _tile_loadd(0, c, c_row); _tile_loadd(1, c + LINE, c_row);
    _tile_loadd(2, c_below, c_row); _tile_loadd(3, c_below + LINE, c_row);
  } else {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  }
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
  _tile_stored(0, c, c_row); _tile_stored(1, c + LINE, c_row);
  _tile_stored(2, c_below, c_row); _tile_stored(3, c_below + LINE, c_row);
}

// C [rows, STEP] of a depth of 2 STEPs, for which all of B is in tiles.
template <bool ADD>
inline void tiled_twice(int64_t rows, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row, float* c,
                        int64_t c_row) {
  const uint32_t* later = b + 4 * b_row;
  _tile_loadd(4, b, b_row);
  _tile_loadd(5, b + LINE, b_row);
  _tile_loadd(6, later, b_row);
  _tile_loadd(7, later + LINE, b_row);
  for (int64_t m = 0; m < rows; m += 16, a += 8 * a_row, c += 4 * c_row) {
    if constexpr (ADD) {
      _tile_loadd(0, c, c_row);
      _tile_loadd(1, c + LINE, c_row);
    } else {
      _tile_zero(0);
      _tile_zero(1);
    }
    _tile_loadd(2, a, a_row);
    _tile_dpbf16ps(0, 2, 4);
    _tile_dpbf16ps(1, 2, 5);
    _tile_loadd(3, a + STEP, a_row);
    _tile_dpbf16ps(0, 3, 6);
    _tile_dpbf16ps(1, 3, 7);
    _tile_stored(0, c, c_row);
    _tile_stored(1, c + LINE, c_row);
  }
}
#else
template <bool ADD>
inline void tiled_twice(int64_t, const bfloat16*, int64_t, const uint32_t*, int64_t, float*, int64_t) {}
template <bool ADD>
inline void tiled(int64_t, const bfloat16*, int64_t, const uint32_t*, int64_t, float*, int64_t) {}
#endif

inline __m512bh pairs(__m512i bits) { return reinterpret_cast<__m512bh>(bits); }

// C [ROWS, STEP].
template <int ROWS, bool ADD>
inline void few(int64_t depth, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row, float* c, int64_t c_row) {
  __m512 sums[ROWS][2];
  for (int i = 0; i < ROWS; ++i)
    for (int v = 0; v < 2; ++v) sums[i][v] = ADD ? _mm512_loadu_ps(c + i * c_row + v * LINE) : _mm512_setzero_ps();
  for (int64_t d = 0; d < depth / 2; ++d) {
    const __m512bh first = pairs(_mm512_loadu_si512(b + d * b_row)), second = pairs(_mm512_loadu_si512(b + d * b_row + LINE));
    for (int i = 0; i < ROWS; ++i) {
      int32_t pair;
      std::memcpy(&pair, a + i * a_row + 2 * d, 4);
      const __m512bh each = pairs(_mm512_set1_epi32(pair));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], each, first);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], each, second);
    }
  }
  for (int i = 0; i < ROWS; ++i)
    for (int v = 0; v < 2; ++v) _mm512_storeu_ps(c + i * c_row + v * LINE, sums[i][v]);
}

// C [rows, columns] (+)= A [rows, depth] B, all in whole STEPs; rows of B, and STEP columns of it, are so many pairs apart.
template <bool ADD>
void multiply(int64_t rows, int64_t columns, int64_t depth, const bfloat16* a, int64_t a_row, const uint32_t* b, int64_t b_row,
              int64_t b_panel, float* c, int64_t c_row, int64_t c_panel) {
  if (has_tiles) {
    asm volatile("" ::: "memory");  // what tiles read is not known to be read
    if (depth == 2 * STEP) {
      for (int64_t n = 0; n < columns; n += STEP, b += b_panel, c += c_panel)
        tiled_twice<ADD>(rows, a, 2 * a_row, b, 4 * b_row, c, 4 * c_row);
      return;
    }
    for (int64_t n = 0; n < columns; n += STEP, b += b_panel, c += c_panel)
      for (int64_t m = 0; m < rows; m += STEP)
        tiled<ADD>(depth, a + m * a_row, 2 * a_row, b, 4 * b_row, c + m * c_row, 4 * c_row);
    return;
  }
  constexpr int ROWS = 8;
  static_assert(STEP % ROWS == 0);
  for (int64_t n = 0; n < columns; n += STEP, b += b_panel, c += c_panel)
    for (int64_t m = 0; m < rows; m += ROWS) few<ROWS, ADD>(depth, a + m * a_row, a_row, b, b_row, c + m * c_row, c_row);
}

// --- rows of bf16, and pairs of them ---

inline __m512 low(__m512i two) { return _mm512_castsi512_ps(_mm512_slli_epi32(two, 16)); }
inline __m512 high(__m512i two) { return _mm512_castsi512_ps(_mm512_and_si512(two, _mm512_set1_epi32(0xffff0000))); }
inline __m512i both(__m512i of_low, __m512i of_high) {  // the low half of the one and the high one of the other
  return _mm512_ternarylogic_epi32(of_low, of_high, _mm512_set1_epi32(0xffff0000), 0xd8);
}
inline __m512 nearest(__m512 x) {  // number of bf16
  return high(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)));
}
inline __m512i paired(__m512 a, __m512 b) {  // of numbers of bf16
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b));
}
inline __m512i nearest_pairs(__m512 a, __m512 b) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i x = _mm512_add_epi32(_mm512_castps_si512(a), half), y = _mm512_add_epi32(_mm512_castps_si512(b), half);
  return both(_mm512_srli_epi32(x, 16), y);
}
inline __m512 wide16(const bfloat16* from, __mmask16 which) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(which, from)), 16));
}
// A whole line of a cache, past it: to be read when much else was; streamed() before another thread reads it.
inline void stream(void* to, __m512i line) { _mm512_stream_si512(static_cast<__m512i*>(to), line); }
inline void streamed() { _mm_sfence(); }

// Rows [n, K] as the right operand of products over K: panels [KP / 2, STEP] of rows, the last ones zero.
void turned(Rows<const bfloat16> from, int64_t n, int64_t K, int64_t KP, uint32_t* to) {
  for (int64_t row = 0; row < rounded(n, STEP); row += LINE)
    for (int64_t k = 0; k < KP; k += STEP) {
      __m512i block[16];
      for (int64_t i = 0; i < LINE; ++i)
        block[i] = row + i < n ? numbers(from[row + i] + k, K - k) : _mm512_setzero_si512();
      transpose(block);
      uint32_t* out = to + row / STEP * KP / 2 * STEP + k / 2 * STEP + row % STEP;
      for (int64_t i = 0; i < LINE; ++i) _mm512_storeu_si512(out + i * STEP, block[i]);
    }
}

// Rows [n, K] as the right operand of products over n: [n / 2, KP], zero where there are none.
void paired(Rows<const bfloat16> from, int64_t n, int64_t K, int64_t KP, uint32_t* to) {
  for (int64_t row = 0; row < rounded(n, STEP); row += 2, to += KP)
    for (int64_t k = 0; k < KP; k += STEP) {
      const __m512i a = row < n ? numbers(from[row] + k, K - k) : _mm512_setzero_si512();
      const __m512i b = row + 1 < n ? numbers(from[row + 1] + k, K - k) : _mm512_setzero_si512();
      __m512i first, second;
      paired(a, b, first, second);
      _mm512_storeu_si512(to + k, first), _mm512_storeu_si512(to + k + LINE, second);
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

struct PairedBlock : Block {
  using Block::Block;
  int64_t rows() const { return rounded(queries(), STEP); }
  int64_t none() const { return rows() - queries(); }  // rows before the first query
  int64_t columns() const { return rounded(keys, STEP); }
  int64_t kept_row() const { return odd_lines(keys + 2); }  // in pairs
  int64_t kept() const { return (queries() + 1) / 2 * kept_row(); }
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

// 2^(x scale - most), to 3e-6 relative.
inline __m512 power(__m512 x, __m512 scale, __m512 most) {
  x = _mm512_max_ps(_mm512_set1_ps(LOWEST), _mm512_fmsub_ps(x, scale, most));  // which leaves what is no number
  const __m512 r = _mm512_reduce_ps(x, 1);  // from 0 to 1
  __m512 p = _mm512_set1_ps(1.35341700e-2f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.20114600e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.41442760e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93003830e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.00000259f));
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
  bfloat16 *content, *position, *of_mixed, *turning, *numbers_of;  // numbers_of: of probabilities, or of gradients of scores
  uint32_t *content_pairs, *position_pairs, *weights, *again;
  float *biases, *scores, *mixed, *mixed_too, *inverse;
  float *of_values, *of_keys, *of_distances, *of_biases;

  Work(const Sizes& sizes, const Operands<bfloat16>& operands, bool is_backward, bool is_scoring, Arena& arena)
      : Layout{sizes, operands}, backward(is_backward), scoring(is_scoring) {
    lay(arena);
    arena.open();
    lay(arena);
    if (!backward) return;
    std::fill(numbers_of, numbers_of + QUERIES * number_row, 0);
    std::fill(position_pairs, position_pairs + QUERIES / 2 * pair_row, 0);
  }
  void lay(Arena& arena) {
    const int64_t operand = columns * KP / 2;
    if (scoring) keys_turned = arena.take<uint32_t>(operand), distances_turned = arena.take<uint32_t>(operand);
    content = arena.take<bfloat16>(QUERIES * KP), position = arena.take<bfloat16>(QUERIES * KP);
    numbers_of = arena.take<bfloat16>(QUERIES * number_row);
    biases = arena.take<float>(2 * KP), inverse = arena.take<float>(QUERIES);
    scores = arena.take<float>((QUERIES + 1) * score_row + QUERIES), mixed = arena.take<float>(QUERIES * KP);
    if (!backward) {
      values = arena.take<uint32_t>(operand);
      return;
    }
    values_turned = arena.take<uint32_t>(operand), keys = arena.take<uint32_t>(operand);
    distances = arena.take<uint32_t>(operand), mixed_too = arena.take<float>(QUERIES * KP);
    of_keys = arena.take<float>(columns * KP), of_values = arena.take<float>(columns * KP);
    of_distances = arena.take<float>(columns * KP), of_biases = arena.take<float>(2 * KP);
    of_mixed = arena.take<bfloat16>(QUERIES * KP), turning = arena.take<bfloat16>(QUERIES * KP);
    content_pairs = arena.take<uint32_t>(QUERIES / 2 * pair_row), position_pairs = arena.take<uint32_t>(QUERIES / 2 * pair_row);
    weights = arena.take<uint32_t>(QUERIES / 2 * pair_row), again = arena.take<uint32_t>(PairedBlock(m, 0).kept());
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
    std::fill(content, content + block.none() * KP, 0), std::fill(position, position + block.none() * KP, 0);
    const Rows<const bfloat16> queries = queries_of(at, block.first);
    for (int64_t i = 0; i < block.queries(); ++i) {
      const bfloat16* from = queries[i];
      for (int64_t k = 0; k < KP; k += STEP) {
        const __mmask32 there = first_of(K - k);
        const __m512 a = wide16(from + k, there), c = wide16(from + k + LINE, there >> 16);
        auto put = [&](const float* bias, bfloat16* to) {
          const __m512 first = _mm512_add_ps(a, _mm512_loadu_ps(bias)), second = _mm512_add_ps(c, _mm512_loadu_ps(bias + LINE));
          _mm512_storeu_si512(to, narrowed(first, second));
        };
        put(biases + k, content + (block.none() + i) * KP + k), put(biases + KP + k, position + (block.none() + i) * KP + k);
      }
    }
  }

  // Scores of a block as rows that begin one distance later each.
  float* shifted(const PairedBlock& block) const { return scores + block.rows() - 1; }

  // Probabilities but for their sum: of two rows each in `kept`, unless null, and what dropout leaves of them in `numbers_of`,
  // if wanted. Inverse sums in `inverse`.
  void attend(Pair at, const PairedBlock& block, uint32_t* kept, bool wanted) {
    const int64_t t = block.rows(), far = m.queries - block.stop;
    const int64_t panel = KP / 2 * STEP;
    const uint32_t* its_distances = distances_turned + far / STEP * panel;
    multiply<false>(t, block.columns(), KP, position, KP, its_distances, STEP, panel, scores, score_row, STEP);
    multiply<true>(t, block.columns(), KP, content, KP, keys_turned, STEP, panel, shifted(block), score_row - 1, STEP);
    const uint8_t* masked = of.masked + ((m.masks > 1 ? at.b : 0) * m.queries + block.first) * m.keys;
    for (int64_t i = block.none() / 2 * 2; i < t; i += 2) {
      SeenKeys seen[2];
      const int8_t* keeps[2] = {nullptr, nullptr};
      for (int which = 0; which < 2; ++which) {
        const int64_t query = i + which - block.none();
        if (query >= 0) seen[which] = SeenKeys(masked + query * m.keys, block.keys);
        if (of.keep) keeps[which] = keep(at, block.first + std::max<int64_t>(query, 0));
      }
      const float* row[2] = {shifted(block) + i * (score_row - 1), shifted(block) + (i + 1) * (score_row - 1)};
      bfloat16* to = wanted ? numbers_of + i * number_row : nullptr;
      two_rows(row, seen, keeps, block, kept, to, inverse + i);
      if (kept) kept += block.kept_row();
    }
    if (wanted) std::fill(numbers_of, numbers_of + block.none() / 2 * 2 * number_row, 0);
  }

  void two_rows(const float* const (&row)[2], const SeenKeys (&seen)[2], const int8_t* const (&keeps)[2], const PairedBlock& block,
                uint32_t* kept, bfloat16* to, float* inverses) const {
    const __m512 times = _mm512_set1_ps(scale * LOG2_E);
    __m512 most[2];
    for (int which = 0; which < 2; ++which)
      most[which] = _mm512_mul_ps(_mm512_set1_ps(largest(row[which], seen[which])), times);
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    auto step = [&](int64_t j, auto whole) {
      __m512 e[2][2];
      for (int which = 0; which < 2; ++which)
        for (int half = 0; half < 2; ++half) {
          const int64_t column = j + half * LINE;
          const __mmask16 there = whole ? 0xffff : seen[which].of(column);
          const __m512 x = whole ? _mm512_loadu_ps(row[which] + column) : _mm512_maskz_loadu_ps(there, row[which] + column);
          e[which][half] = nearest(power(x, times, most[which]));
          if (!whole) e[which][half] = _mm512_maskz_mov_ps(there, e[which][half]);
          sums[which] = _mm512_add_ps(sums[which], e[which][half]);
        }
      if (kept)
        for (int half = 0; half < 2; ++half)
          if (whole || j + half * LINE < block.kept_row()) {
            const __m512i two = paired(e[0][half], e[1][half]);
            uint32_t* at = kept + j + half * LINE;
            to ? stream(at, two) : _mm512_storeu_si512(at, two);  // without `to` they are read at once
          }
      if (!to) return;
      for (int which = 0; which < 2; ++which) {
        if (keeps[which])
          for (int half = 0; half < 2; ++half)
            e[which][half] = _mm512_maskz_mov_ps(kept16(keeps[which], j + half * LINE, m.keys), e[which][half]);
        _mm512_storeu_si512(to + which * number_row + j, narrowed(e[which][0], e[which][1]));
      }
    };
    const int64_t begin = std::min(seen[0].last ? seen[0].first : seen[1].first, seen[1].first) / STEP * STEP;
    const int64_t end = rounded(std::max(seen[0].last, seen[1].last), STEP);
    const int64_t from = rounded(std::max(seen[0].first, seen[1].first), STEP);
    const int64_t until = std::max(std::min(seen[0].last, seen[1].last) / STEP * STEP, from);
    const int64_t kept_end = std::min(block.columns(), block.kept_row());
    if (kept) std::fill(kept, kept + begin, 0), std::fill(kept + std::min(end, kept_end), kept + block.kept_row(), 0);
    if (to)
      for (int which = 0; which < 2; ++which) {
        bfloat16* zeros = to + which * number_row;
        std::fill(zeros, zeros + begin, 0), std::fill(zeros + end, zeros + block.columns(), 0);
      }
    int64_t j = begin;
    for (; j < std::min(from, end); j += STEP) step(j, std::false_type{});
    for (; j < until; j += STEP) step(j, std::true_type{});
    for (; j < end; j += STEP) step(j, std::false_type{});
    for (int which = 0; which < 2; ++which) {
      const float sum = _mm512_reduce_add_ps(sums[which]);
      inverses[which] = seen[which].first < seen[which].last ? 1.0f / sum : 0.0f;
    }
    if (kept) std::memcpy(kept + block.kept_row() - 2, inverses, 2 * sizeof(float));
  }

  static float largest(const float* row, Seen seen) {
    if (seen.first == seen.last) return 0.0f;
    constexpr int MANY = 4;
    __m512 most[MANY];
    for (__m512& each : most) each = _mm512_set1_ps(row[seen.first]);
    int64_t j = seen.first;
    for (; j + MANY * LINE <= seen.last; j += MANY * LINE)
      for (int v = 0; v < MANY; ++v) most[v] = _mm512_max_ps(most[v], _mm512_loadu_ps(row + j + v * LINE));
    for (; j < seen.last; j += LINE) {
      const __mmask16 there = first_of(std::min(seen.last - j, LINE));
      most[0] = _mm512_mask_max_ps(most[0], there, most[0], _mm512_maskz_loadu_ps(there, row + j));
    }
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3])));
  }

  void forward(Pair at, bfloat16* out, uint32_t* kept) {
    take_keys(at);
    for (int64_t n = 0; n < blocks_of(m); ++n) {
      const PairedBlock block(m, n);
      const int64_t t = block.rows();
      take_queries(at, block);
      attend(at, block, kept, true);
      multiply<false>(t, KP, block.columns(), numbers_of, number_row, values, KP, STEP, mixed, KP, STEP);
      for (int64_t i = block.none(); i < t; ++i) {
        const float times = inverse[i] * m.kept_scale;
        put_row(mixed + i * KP, nullptr, times, out + in_mixed(at, block.first + i - block.none()));
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
      if (!kept) attend(at, block, again, false);
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
    for (int64_t i = none; i < t; ++i)
      for (int64_t k = 0; k < KP; k += STEP)
        _mm512_storeu_si512(of_mixed + i * KP + k, numbers(of_out + in_mixed(at, block.first + i - none) + k, K - k));
    multiply<false>(t, block.columns(), KP, of_mixed, KP, values_turned, STEP, panel / 2, scores, score_row, STEP);
    int64_t pair = 0;
    for (; pair < none / 2; ++pair) clear(pair);
    for (const uint32_t* row = kept; pair < t / 2; ++pair, row += block.kept_row()) {
      std::memcpy(inverse + 2 * pair, row + block.kept_row() - 2, 2 * sizeof(float));
      const int64_t query = 2 * pair - none;
      const int8_t* keeps[2] = {nullptr, nullptr};
      for (int which = 0; which < 2 && of.keep; ++which)
        keeps[which] = keep(at, block.first + std::max<int64_t>(query + which, 0));
      unsoftmaxed(pair, row, keeps, block);
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
      (adds ? multiply<true> : multiply<false>)(KP, block.columns(), t, turning, QUERIES, right, row, STEP, sum, STEP, panel);
    };
    const int64_t before = t - 1;
    add(of_mixed, weights, pair_row, of_values, !last);
    add(content, content_pairs, pair_row, of_keys, !last);
    add(position, position_pairs + QUERIES - before, pair_row + 2, of_distances + far / STEP * panel, true);
    const bfloat16* gradients = numbers_of + QUERIES;
    multiply<false>(t, KP, block.columns(), gradients, number_row, keys, KP, STEP, mixed, KP, STEP);
    const uint32_t* its_distances = distances + far / 2 * KP;
    multiply<false>(t, KP, block.columns(), gradients - before, number_row + 1, its_distances, KP, STEP, mixed_too, KP, STEP);
    sum_rows(mixed, t, of_biases), sum_rows(mixed_too, t, of_biases + KP);
    for (int64_t i = none; i < t; ++i)
      put_row(mixed + i * KP, mixed_too + i * KP, scale, queries_in(to, at, block.first)[i - none]);
  }
  void sum_rows(const float* from, int64_t rows, float* sum) const {
    for (int64_t k = 0; k < KP; k += LINE) {
      __m512 all = _mm512_setzero_ps();
      for (int64_t i = 0; i < rows; ++i) all = _mm512_add_ps(all, _mm512_loadu_ps(from + i * KP + k));
      _mm512_storeu_ps(sum + k, _mm512_fmadd_ps(all, _mm512_set1_ps(scale), _mm512_loadu_ps(sum + k)));
    }
  }
  void clear(int64_t pair) {  // gradients of two rows that are none
    std::fill(weights + pair * pair_row, weights + (pair + 1) * pair_row, 0);
    std::fill(content_pairs + pair * pair_row, content_pairs + (pair + 1) * pair_row, 0);
    std::fill(position_pairs + pair * pair_row, position_pairs + (pair + 1) * pair_row, 0);
    std::fill(numbers_of + 2 * pair * number_row, numbers_of + 2 * (pair + 1) * number_row, 0);
  }

  // Gradients of two rows' scores, from those of probabilities: as numbers, in pairs, and in pairs of which the second is of
  // the next key: rows of distances. And what dropout left of probabilities, in pairs.
  void unsoftmaxed(int64_t pair, const uint32_t* p, const int8_t* const (&keeps)[2], const PairedBlock& block) {
    const float *first = scores + 2 * pair * score_row, *second = first + score_row;
    uint32_t *of_content = content_pairs + pair * pair_row, *of_position = position_pairs + pair * pair_row + QUERIES;
    uint32_t* left = weights + pair * pair_row;
    bfloat16* to = numbers_of + 2 * pair * number_row + QUERIES;
    const int64_t columns = block.columns();
    auto probabilities = [&](int64_t j) {
      const __mmask16 there = first_of(std::min<int64_t>(block.keys - j, LINE));
      return _mm512_maskz_loadu_epi32(there, p + j);
    };
    auto gradient = [&](int which, int64_t j) {
      const __m512 x = _mm512_loadu_ps((which ? second : first) + j);
      return keeps[which] ? _mm512_maskz_mov_ps(kept16(keeps[which], j, m.keys), x) : x;
    };
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t j = 0; j < columns; j += LINE) {
      const __m512i two = probabilities(j);
      const __m512 a = gradient(0, j), c = gradient(1, j);
      sums[0] = _mm512_fmadd_ps(a, low(two), sums[0]), sums[1] = _mm512_fmadd_ps(c, high(two), sums[1]);
      __m512i weight = two;
      if (keeps[0]) {
        const uint32_t keep_first = kept16(keeps[0], j, m.keys), keep_second = kept16(keeps[1], j, m.keys);
        weight = both(_mm512_maskz_mov_epi32(keep_first, two), _mm512_maskz_mov_epi32(keep_second, two));
      }
      _mm512_storeu_si512(left + j, weight);
    }
    __m512 times[2], less[2];
    for (int which = 0; which < 2; ++which) {
      const float each = inverse[2 * pair + which], sum = _mm512_reduce_add_ps(sums[which]);
      times[which] = _mm512_set1_ps(each * m.kept_scale), less[which] = _mm512_set1_ps(each * each * m.kept_scale * sum);
    }
    __m512i before = _mm512_setzero_si512();
    for (int64_t j = 0; j < columns; j += STEP) {
      __m512 of_score[2][2];
      for (int half = 0; half < 2; ++half) {
        const int64_t column = j + half * LINE;
        const __m512i two = probabilities(column);
        const __m512 x = _mm512_mul_ps(low(two), _mm512_fmsub_ps(gradient(0, column), times[0], less[0]));
        const __m512 y = _mm512_mul_ps(high(two), _mm512_fmsub_ps(gradient(1, column), times[1], less[1]));
        of_score[0][half] = x, of_score[1][half] = y;
        const __m512i found = nearest_pairs(x, y);
        _mm512_storeu_si512(of_content + column, found);
        _mm512_storeu_si512(of_position + column - LINE, both(before, _mm512_alignr_epi32(found, before, 1)));
        before = found;
      }
      _mm512_storeu_si512(to + j, narrowed(of_score[0][0], of_score[0][1]));
      _mm512_storeu_si512(to + number_row + j, narrowed(of_score[1][0], of_score[1][1]));
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
