// C [M, N] = A [M, D] B [D, N], and what is added to it, of bf16 with sums in fp32: by tiles of AMX, for many rows, columns and
// depth. A and B are packed as tiles are read, one after the other: squares of STEP by STEP numbers, all of a depth together.
//
// What is read again and again is to be in a core's first cache, and what meets it once only is loaded past that. Of a shallow
// product that is a block of STEP rows of A, and columns of B pass by, so many as the second cache holds. Of a deep one it is a
// piece of STEP columns of B, and blocks of A pass by; their sums so far wait in fp32.

#ifndef TILES
#error "this CPU, or the compiler for it, has no tiles"
#endif

namespace {

constexpr int64_t TILE = 16 * STEP, SQUARE = 2 * TILE;  // numbers; of the sums in fp32 as well
constexpr int64_t DEEP = 16;                            // squares: so many are half of the first cache
constexpr int64_t LEFT = 256, RIGHT = 512;  // squares that are packed at a time: half a MiB of A, one of B, or two

struct Matrix {  // one of the distances is 1
  const bfloat16* first;
  int64_t row, column, rows, columns;
};

struct Product {
  const bfloat16 *left, *right, *added;  // added: or null
  bfloat16* out;
  int64_t left_row, left_column, right_row, right_column, added_row, out_row;
  int64_t rows, columns, depth, threads;
};

inline int64_t squares(int64_t n) { return (n + STEP - 1) / STEP; }

// Of a square's row i, as rows lie, what is there.
inline __m512i line(const Matrix& of, int64_t row, int64_t column) {
  return row < of.rows ? numbers(of.first + row * of.row + column, of.columns - column) : _mm512_setzero_si512();
}
inline Matrix turned(const Matrix& of) { return {of.first, of.column, of.row, of.columns, of.rows}; }

// A square of A: two tiles of 16 rows.
inline void pack_left(const Matrix& a, int64_t m, int64_t d, bfloat16* to) {
  if (a.column == 1) {
    for (int64_t i = 0; i < STEP; ++i) _mm512_store_si512(to + i * STEP, line(a, m + i, d));
    return;
  }
  const Matrix rows = turned(a);
  __m512i first[16], second[16];
  for (int64_t i = 0; i < LINE; ++i) paired(line(rows, d + 2 * i, m), line(rows, d + 2 * i + 1, m), first[i], second[i]);
  transpose(first), transpose(second);
  for (int64_t i = 0; i < LINE; ++i)
    _mm512_store_si512(to + i * STEP, first[i]), _mm512_store_si512(to + TILE + i * STEP, second[i]);
}

// A square of B: two tiles of 16 columns, in pairs of the depth.
inline void pack_right(const Matrix& b, int64_t d, int64_t n, bfloat16* to) {
  if (b.column == 1) {
    for (int64_t i = 0; i < LINE; ++i) {
      __m512i first, second;
      paired(line(b, d + 2 * i, n), line(b, d + 2 * i + 1, n), first, second);
      _mm512_store_si512(to + i * STEP, first), _mm512_store_si512(to + TILE + i * STEP, second);
    }
    return;
  }
  const Matrix columns = turned(b);
  for (int64_t half = 0; half < 2; ++half) {
    __m512i block[16];
    for (int64_t i = 0; i < LINE; ++i) block[i] = line(columns, n + half * LINE + i, d);
    transpose(block);
    for (int64_t i = 0; i < LINE; ++i) _mm512_store_si512(to + half * TILE + i * STEP, block[i]);
  }
}

// C, a square, (+)= so many squares of A and of B. PAST: what is loaded past the first cache is A, else B.
template <bool ADD, bool PAST>
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
    if constexpr (PAST) {
      _tile_loadd(6, b, ROW); _tile_stream_loadd(4, a, ROW);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + TILE, ROW);
      _tile_dpbf16ps(1, 4, 7);
      _tile_stream_loadd(5, a + TILE, ROW);
    } else {
      _tile_stream_loadd(6, b, ROW); _tile_loadd(4, a, ROW);
      _tile_dpbf16ps(0, 4, 6);
      _tile_stream_loadd(7, b + TILE, ROW);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a + TILE, ROW);
    }
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, ROW); _tile_stored(1, c + TILE / 2, ROW);
  _tile_stored(2, c + TILE, ROW); _tile_stored(3, c + 3 * TILE / 2, ROW);
  asm volatile("" ::: "memory");
}

inline void put(const Product& p, const float* c, int64_t m, int64_t n) {
  const __mmask32 there = first_of(p.columns - n);
  for (int64_t i = 0; i < std::min(p.rows - m, STEP); ++i) {
    const float* sums = c + i / LINE * TILE + i % LINE * LINE;
    __m512 x = _mm512_load_ps(sums), y = _mm512_load_ps(sums + TILE / 2);
    if (p.added) {
      const __m512i more = _mm512_maskz_loadu_epi16(there, p.added + (m + i) * p.added_row + n);
      auto wide = [](__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); };
      x = _mm512_add_ps(x, wide(_mm512_castsi512_si256(more))), y = _mm512_add_ps(y, wide(_mm512_extracti64x4_epi64(more, 1)));
    }
    _mm512_mask_storeu_epi16(p.out + (m + i) * p.out_row + n, there, narrowed(x, y));
  }
}

class Work {  // of one thread
 public:
  explicit Work(const Product& product)
      : p(product), depth(squares(p.depth)), deep(depth > DEEP), blocks(deep ? std::max<int64_t>(LEFT / depth, 1) : 1),
        panels(std::max<int64_t>((deep ? 2 : 1) * RIGHT / depth, 1)) {
    lay(), arena.open(), lay();
  }

  void run(Share rows, Share columns) {  // in STEPs
    for (int64_t n = columns.first; n < columns.last; n += panels) {
      const int64_t panels_here = std::min(panels, columns.last - n);
      take_right(n, panels_here);
      for (int64_t m = rows.first; m < rows.last; m += blocks) {
        const int64_t blocks_here = std::min(blocks, rows.last - m);
        take_left(m, blocks_here);
        deep ? by_columns(m, blocks_here, n, panels_here) : by_rows(m, n, panels_here);
      }
    }
  }

 private:
  void lay() {
    b = arena.take<bfloat16>(panels * depth * SQUARE), a = arena.take<bfloat16>(blocks * depth * SQUARE);
    c = arena.take<float>(blocks * SQUARE);
  }

  template <class Pack>
  void each(bool along, int64_t many, Pack pack) const {  // square of so many rows or columns; along the depth, or across it
    for (int64_t d = 0; d < (along ? 1 : depth); ++d)
      for (int64_t i = 0; i < many; ++i)
        for (int64_t e = d; e < (along ? depth : d + 1); ++e) pack(i, e, (i * depth + e) * SQUARE);
  }
  void take_left(int64_t m, int64_t many) {
    const Matrix left{p.left, p.left_row, p.left_column, p.rows, p.depth};
    each(left.column == 1, many, [&](int64_t i, int64_t d, int64_t at) { pack_left(left, (m + i) * STEP, d * STEP, a + at); });
  }
  void take_right(int64_t n, int64_t many) {
    const Matrix right{p.right, p.right_row, p.right_column, p.depth, p.columns};
    each(right.column != 1, many, [&](int64_t i, int64_t d, int64_t at) { pack_right(right, d * STEP, (n + i) * STEP, b + at); });
  }

  void by_rows(int64_t m, int64_t n, int64_t many) {
    for (int64_t i = 0; i < many; ++i) {
      multiply<false, false>(depth, a, b + i * depth * SQUARE, c);
      put(p, c, m * STEP, (n + i) * STEP);
    }
  }
  void by_columns(int64_t m, int64_t many, int64_t n, int64_t panels_here) {
    for (int64_t j = 0; j < panels_here; ++j)
      for (int64_t d = 0; d < depth; d += DEEP) {
        const int64_t piece = std::min(DEEP, depth - d);
        for (int64_t i = 0; i < many; ++i) {
          const bfloat16 *x = a + (i * depth + d) * SQUARE, *y = b + (j * depth + d) * SQUARE;
          d ? multiply<true, true>(piece, x, y, c + i * SQUARE) : multiply<false, true>(piece, x, y, c + i * SQUARE);
          if (d + piece == depth) put(p, c + i * SQUARE, (m + i) * STEP, (n + j) * STEP);
        }
      }
  }

  const Product& p;
  const int64_t depth;  // in squares
  const bool deep;
  const int64_t blocks, panels;  // at a time
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
  }
}
