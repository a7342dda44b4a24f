// C [M, N] = A [M, D] B [D, N], and what is added to it, of bf16 with sums in fp32: by tiles of AMX, for many rows, columns and
// depth. A and B are packed as tiles are read, one after the other: squares of STEP by STEP numbers, those of a depth together.
// B, C and what is added may be of fp32: B is rounded as it is packed.
//
// The depth is taken in pieces, of which a block of STEP rows of A fills most of a core's first cache; so many columns of B as
// the second holds pass by it, loaded past the first. Of several pieces the sums so far wait in fp32 beside B.

#ifndef TILES
#error "this CPU, or the compiler for it, has no tiles"
#endif

namespace {

constexpr int64_t TILE = 16 * STEP, SQUARE = 2 * TILE;  // numbers; of the sums in fp32 as well
constexpr int64_t PIECE = 16;               // squares of the depth
constexpr int64_t RIGHT = 512, SUMS = 256;  // squares of B at a time, half as many beside sums, and of those: one MiB each
constexpr int64_t LEFT = 8;  // blocks of A that are packed at a time where its columns lie together: more is read on end

template <class N>
struct Matrix {  // one of the distances is 1
  const N* first;
  int64_t row, column, rows, columns;
};

struct Product {
  const bfloat16* left;
  const void *right, *added;  // added: or null
  void* out;
  const bfloat16* positive;  // [M, N], or null: where it is not above 0, C is 0
  int64_t left_row, left_column, right_row, right_column, added_row, out_row, positive_row;
  int64_t rows, columns, depth, threads;
  bool right_is_wide, added_is_wide, out_is_wide;  // of fp32
  bool relu;
};

inline int64_t squares(int64_t n) { return (n + STEP - 1) / STEP; }

inline __m512i numbers(const float* from, int64_t n) {  // rounded
  const __mmask32 there = first_of(n);
  return narrowed(_mm512_maskz_loadu_ps(there, from), _mm512_maskz_loadu_ps(there >> 16, from + LINE));
}

// Of a square's row i, as rows lie, what is there.
template <class N>
inline __m512i line(const Matrix<N>& of, int64_t row, int64_t column) {
  return row < of.rows ? numbers(of.first + row * of.row + column, of.columns - column) : _mm512_setzero_si512();
}
template <class N>
inline Matrix<N> turned(const Matrix<N>& of) {
  return {of.first, of.column, of.row, of.columns, of.rows};
}

// A square of A: two tiles of 16 rows.
inline void pack_left(const Matrix<bfloat16>& a, int64_t m, int64_t d, bfloat16* to) {
  if (a.column == 1) {
    for (int64_t i = 0; i < STEP; ++i) _mm512_store_si512(to + i * STEP, line(a, m + i, d));
    return;
  }
  const Matrix<bfloat16> rows = turned(a);
  __m512i first[16], second[16];
  for (int64_t i = 0; i < LINE; ++i) paired(line(rows, d + 2 * i, m), line(rows, d + 2 * i + 1, m), first[i], second[i]);
  transpose(first), transpose(second);
  for (int64_t i = 0; i < LINE; ++i)
    _mm512_store_si512(to + i * STEP, first[i]), _mm512_store_si512(to + TILE + i * STEP, second[i]);
}

// A square of B: two tiles of 16 columns, in pairs of the depth.
template <class N>
inline void pack_right(const Matrix<N>& b, int64_t d, int64_t n, bfloat16* to) {
  if (b.column == 1) {
    for (int64_t i = 0; i < LINE; ++i) {
      __m512i first, second;
      paired(line(b, d + 2 * i, n), line(b, d + 2 * i + 1, n), first, second);
      _mm512_store_si512(to + i * STEP, first), _mm512_store_si512(to + TILE + i * STEP, second);
    }
    return;
  }
  const Matrix<N> columns = turned(b);
  for (int64_t half = 0; half < 2; ++half) {
    __m512i block[16];
    for (int64_t i = 0; i < LINE; ++i) block[i] = line(columns, n + half * LINE + i, d);
    transpose(block);
    for (int64_t i = 0; i < LINE; ++i) _mm512_store_si512(to + half * TILE + i * STEP, block[i]);
  }
}

// C, a square, (+)= so many squares of A and of B, which is loaded past the first cache.
template <bool ADD>
inline void multiply(int64_t depth, const bfloat16* a, const bfloat16* b, float* c) {
  constexpr int64_t ROW = 64;  // bytes
  asm volatile("" ::: "memory");  // what tiles read is not known to be read
  if constexpr (ADD) {
    _tile_loadd(0, c, ROW); _tile_loadd(1, c + TILE / 2, ROW);
    _tile_loadd(2, c + TILE, ROW); _tile_loadd(3, c + 3 * TILE / 2, ROW);
  } else {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  }
  for (int64_t d = 0; d < depth; ++d, a += SQUARE, b += SQUARE) {
    _tile_stream_loadd(6, b, ROW); _tile_loadd(4, a, ROW);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, b + TILE, ROW);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + TILE, ROW);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, ROW); _tile_stored(1, c + TILE / 2, ROW);
  _tile_stored(2, c + TILE, ROW); _tile_stored(3, c + 3 * TILE / 2, ROW);
  asm volatile("" ::: "memory");
}

// Of bf16, as they are in fp32.
inline __m512 wide(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

// Of a square's row, of which the columns `there` are, what becomes of the sums.
inline void put(const Product& p, const float* sums, int64_t row, int64_t n, __mmask32 there) {
  __m512 x = _mm512_load_ps(sums), y = _mm512_load_ps(sums + TILE / 2);
  if (p.added && p.added_is_wide) {
    const float* more = static_cast<const float*>(p.added) + row * p.added_row + n;
    x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(there, more));
    y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(there >> 16, more + LINE));
  } else if (p.added) {
    const __m512i more = _mm512_maskz_loadu_epi16(there, static_cast<const bfloat16*>(p.added) + row * p.added_row + n);
    x = _mm512_add_ps(x, wide(_mm512_castsi512_si256(more))), y = _mm512_add_ps(y, wide(_mm512_extracti64x4_epi64(more, 1)));
  }
  if (p.relu) {  // which leaves what is no number
    const __m512 zero = _mm512_setzero_ps();
    x = _mm512_max_ps(zero, x), y = _mm512_max_ps(zero, y);
  }
  const int64_t at = row * p.out_row + n;
  if (p.out_is_wide) {
    float* out = static_cast<float*>(p.out) + at;
    if (there == ~0u && reinterpret_cast<uintptr_t>(out) % 64 == 0)
      _mm512_stream_ps(out, x), _mm512_stream_ps(out + LINE, y);  // past the caches: it is read after all others of its kind
    else
      _mm512_mask_storeu_ps(out, there, x), _mm512_mask_storeu_ps(out + LINE, there >> 16, y);
    return;
  }
  __m512i found = narrowed(x, y);
  if (p.positive) {
    const __m512i which = _mm512_maskz_loadu_epi16(there, p.positive + row * p.positive_row + n);
    found = _mm512_maskz_mov_epi16(_mm512_cmpgt_epi16_mask(which, _mm512_setzero_si512()), found);
  }
  _mm512_mask_storeu_epi16(static_cast<bfloat16*>(p.out) + at, there, found);
}

// Squares side by side: lines of a row together.
inline void put(const Product& p, const float* c, int64_t m, int64_t n, int64_t many) {
  for (int64_t i = 0; i < std::min(p.rows - m, STEP); ++i)
    for (int64_t j = 0; j < many; ++j) {
      const int64_t column = n + j * STEP;
      put(p, c + j * SQUARE + i / LINE * TILE + i % LINE * LINE, m + i, column, first_of(p.columns - column));
    }
}

class Work {  // of one thread
 public:
  explicit Work(const Product& product)
      : p(product), depth(squares(p.depth)), pieces(parts(depth, PIECE)), piece(parts(depth, pieces)),
        panels((pieces > 1 ? RIGHT / 2 : RIGHT) / piece), blocks(pieces > 1 ? SUMS / panels : 1),
        lefts(p.left_column == 1 ? 1 : LEFT) {
    lay(), arena.open(), lay();
  }

  void run(Share rows, Share columns) {  // in STEPs
    const int64_t down = pieces > 1 ? blocks : rows.last - rows.first;
    for (int64_t n = columns.first; n < columns.last; n += panels)
      for (int64_t m = rows.first; m < rows.last; m += down)
        add_up(m, std::min(down, rows.last - m), n, std::min(panels, columns.last - n));
  }

 private:
  static int64_t parts(int64_t whole, int64_t of) { return (whole + of - 1) / of; }

  void lay() {
    b = arena.take<bfloat16>(panels * piece * SQUARE), a = arena.take<bfloat16>(lefts * piece * SQUARE);
    c = arena.take<float>((pieces > 1 ? blocks * panels : 2) * SQUARE);
  }

  void add_up(int64_t m, int64_t down, int64_t n, int64_t across) {
    for (int64_t d = 0; d < depth; d += piece) {
      const int64_t deep = std::min(piece, depth - d);
      take_right(n, across, d, deep);
      for (int64_t i = 0; i < down; ++i) {
        if (i % lefts == 0) take_left(m + i, std::min(lefts, down - i), d, deep);
        for (int64_t j = 0; j < across; j += 2) {
          const int64_t two = std::min<int64_t>(2, across - j);
          float* const sums = c + (pieces > 1 ? i * panels + j : 0) * SQUARE;
          for (int64_t k = 0; k < two; ++k) {
            const bfloat16 *x = a + i % lefts * deep * SQUARE, *y = b + (j + k) * deep * SQUARE;
            d ? multiply<true>(deep, x, y, sums + k * SQUARE) : multiply<false>(deep, x, y, sums + k * SQUARE);
          }
          if (d + deep == depth) put(p, sums, (m + i) * STEP, (n + j) * STEP, two);
        }
      }
    }
  }

  // Squares of so many rows or columns; along the depth, or across it.
  template <class Pack>
  static void each(bool along, int64_t many, int64_t deep, Pack pack) {
    for (int64_t d = 0; d < (along ? 1 : deep); ++d)
      for (int64_t i = 0; i < many; ++i)
        for (int64_t e = d; e < (along ? deep : d + 1); ++e) pack(i, e, (i * deep + e) * SQUARE);
  }
  void take_left(int64_t m, int64_t many, int64_t first, int64_t deep) {
    const Matrix<bfloat16> left{p.left, p.left_row, p.left_column, p.rows, p.depth};
    each(left.column == 1, many, deep,
         [&](int64_t i, int64_t d, int64_t at) { pack_left(left, (m + i) * STEP, (first + d) * STEP, a + at); });
  }
  void take_right(int64_t n, int64_t many, int64_t first, int64_t deep) {
    p.right_is_wide ? take_right<float>(n, many, first, deep) : take_right<bfloat16>(n, many, first, deep);
  }
  template <class N>
  void take_right(int64_t n, int64_t many, int64_t first, int64_t deep) {
    const Matrix<N> right{static_cast<const N*>(p.right), p.right_row, p.right_column, p.depth, p.columns};
    each(right.column != 1, many, deep,
         [&](int64_t i, int64_t d, int64_t at) { pack_right(right, (first + d) * STEP, (n + i) * STEP, b + at); });
  }

  const Product& p;
  const int64_t depth, pieces, piece;   // the depth, how many pieces, and such a one, in squares
  const int64_t panels, blocks, lefts;  // at a time: columns of B, rows whose sums wait, rows of A that are packed, in STEPs
  Arena arena;
  bfloat16 *a, *b;
  float* c;
};

// Of so many threads, how many share out rows (each with so many of the columns' threads): what they pack is least.
int64_t threads_down(int64_t threads, int64_t blocks, int64_t panels) {
  int64_t best = 1;
  auto packed = [&](int64_t down) { return (blocks + down - 1) / down + (panels + threads / down - 1) / (threads / down); };
  for (int64_t down = 2; down <= threads; ++down)
    if (threads % down == 0 && packed(down) < packed(best)) best = down;
  return best;
}

}  // namespace

extern "C" bool has_products() { return has_tiles; }

extern "C" void multiply(const Product* p) {
  const int64_t blocks = squares(p->rows), panels = squares(p->columns);
#pragma omp parallel num_threads(p->threads)
  {
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    const int64_t down = threads_down(threads, blocks, panels), across = threads / down;
    Tiles tiles;
    Work(*p).run(share(blocks, down, thread / across), share(panels, across, thread % across));
    _mm_sfence();  // before others read what went past the caches
  }
}
