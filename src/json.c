/*-------------------------------------------------------------------------
 *
 * json.c
 *	  JSON as the tenant sends it: reading values, and cutting a page of
 *	  statuses into its items without parsing them.
 *
 * cJSON builds the trees, and nothing outside this file knows that.  It is
 * neither strict nor shy of reading past its input, so nothing reaches it
 * before a checker of our own has proved the text to be JSON that PostgreSQL's
 * json and jsonb take as well.  The work is split by what it is for:
 *
 * - json_cut_page() meets every item at every pull.  It proves only what is
 *	 needed to tell items apart and to make their bytes comparable: quotes and
 *	 brackets, UTF-8, the depth, replaced escapes.
 * - json_parse() meets what is new or changed.  It proves all the rest:
 *	 grammar, numbers, literals, escapes, control characters.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <cJSON.h>

#include "json.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"
#include "port/pg_bswap.h"
#include "utils/json.h"
#include "utils/memutils.h"

/* Deeper than any answer seen; cJSON and PostgreSQL's parser recurse. */
#define JSON_MAX_DEPTH 100

/* A page is asked for with 250; this only bounds memory. */
#define JSON_MAX_ELEMENTS 100000
#define JSON_FIRST_ELEMENTS 256

/* cJSON copies a number to a buffer of 64 and would split a longer one. */
#define JSON_MAX_NUMBER 63

/* numeric, in jsonb, overflows from exponents of five or six digits on. */
#define JSON_MAX_EXPONENT_DIGITS 4

/* Doubles hold every integer below 2^53; at 2^53 rounding has begun. */
#define JSON_EXACT_INTEGERS (INT64CONST(1) << 53)

/* First guess of json_print(); what it prints are small objects. */
#define JSON_PRINT_SIZE 256

/* \uXXXX */
#define UNICODE_ESCAPE_LEN 6
#define REPLACEMENT_ESCAPE "\\ufffd"

/* The same where the database's encoding may lack that character. */
#define REPLACEMENT_ESCAPE_ASCII "\\u003f"

StaticAssertDecl(JSON_MAX_DEPTH < CJSON_NESTING_LIMIT,
				 "cJSON must accept the depth that we accept");


/*
 * Strings are most of a page, so they are crossed a block of bytes at a time:
 * 16 where every processor of the architecture can, else 8.  block_hits() has
 * BITS_PER_HIT bits for each byte of the block, the first byte's lowest; the
 * lowest one set is that of the first quote, backslash or, if wanted, control
 * character.
 */
#ifdef __SSE2__

#define BLOCK_SIZE sizeof(__m128i)
#define BITS_PER_HIT 1

static inline uint64
block_hits(const char *p, bool controls)
{
	__m128i		block = _mm_loadu_si128((const __m128i *) p);
	__m128i		hits = _mm_or_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8('"')),
									_mm_cmpeq_epi8(block, _mm_set1_epi8('\\')));

	/* SSE2 has no unsigned "less": a byte is at most x if max(byte, x) is x */
	if (controls)
	{
		__m128i		limit = _mm_set1_epi8(0x1f);
		__m128i		highest = _mm_max_epu8(block, limit);

		hits = _mm_or_si128(hits, _mm_cmpeq_epi8(highest, limit));
	}
	return (uint32) _mm_movemask_epi8(hits);
}

#else

#define BLOCK_SIZE sizeof(uint64)
#define BITS_PER_HIT BITS_PER_BYTE

/*
 * These set the top bit of every byte of "word" that is less than "n" (at most
 * 128), or equal to "b".  Borrows can set bits above the first true one, never
 * below it, and only the first is used.
 */
#define EVERY_BYTE(b) (UINT64CONST(0x0101010101010101) * (unsigned char) (b))
#define BYTES_BELOW(word, n) \
	(((word) - EVERY_BYTE(n)) & ~(word) & EVERY_BYTE(0x80))
#define BYTES_EQUAL(word, b) BYTES_BELOW((word) ^ EVERY_BYTE(b), 1)

static inline uint64
block_hits(const char *p, bool controls)
{
	uint64		word;
	uint64		hits;

	memcpy(&word, p, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	hits = BYTES_EQUAL(word, '"') | BYTES_EQUAL(word, '\\');
	return controls ? hits | BYTES_BELOW(word, 0x20) : hits;
}

#endif

/*
 * The next quote or backslash (or control character), or "end".  "controls" is
 * a constant wherever this is inlined.
 */
static inline const char *
find_in_string(const char *p, const char *end, bool controls)
{
	for (; end - p >= (ptrdiff_t) BLOCK_SIZE; p += BLOCK_SIZE)
	{
		uint64		hits = block_hits(p, controls);

		if (hits != 0)
			return p + pg_rightmost_one_pos64(hits) / BITS_PER_HIT;
	}
	while (p < end && *p != '"' && *p != '\\' &&
		   !(controls && (unsigned char) *p < 0x20))
		p++;
	return p;
}

static inline bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static inline const char *
skip_space(const char *p, const char *end)
{
	while (p < end && is_space(*p))
		p++;
	return p;
}

bool
json_valid_utf8(const char *text, size_t len)
{
	return len <= INT_MAX && pg_verify_mbstr(PG_UTF8, text, (int) len, true);
}


/*
 * Escapes
 */

static inline int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The code unit of the \uXXXX at "p", or -1 where there is none. */
static int
unicode_escape(const char *p, const char *end)
{
	int			unit = 0;

	if (end - p < UNICODE_ESCAPE_LEN || p[0] != '\\' || p[1] != 'u')
		return -1;
	for (int i = 2; i < UNICODE_ESCAPE_LEN; i++)
	{
		int			digit = hex_digit(p[i]);

		if (digit < 0)
			return -1;
		unit = (unit << 4) | digit;
	}
	return unit;
}

/*
 * Length of the \u escape at "p": 6, or 12 where it is a surrogate pair.
 * 0 where PostgreSQL would refuse to make a character of it although it is
 * well formed: U+0000 and a lone surrogate.  -1 where it is not well formed.
 */
static int
unicode_escape_len(const char *p, const char *end)
{
	int			unit = unicode_escape(p, end);

	if (unit < 0)
		return -1;
	if (unit == 0 || is_utf16_surrogate_second(unit))
		return 0;
	if (!is_utf16_surrogate_first(unit))
		return UNICODE_ESCAPE_LEN;

	unit = unicode_escape(p + UNICODE_ESCAPE_LEN, end);
	if (unit >= 0 && is_utf16_surrogate_second(unit))
		return 2 * UNICODE_ESCAPE_LEN;
	return 0;
}

static const char *
replacement_escape(void)
{
	int			encoding = GetDatabaseEncoding();

	return encoding == PG_UTF8 || encoding == PG_SQL_ASCII ?
		REPLACEMENT_ESCAPE : REPLACEMENT_ESCAPE_ASCII;
}

/*
 * Step over the escape at "p", replacing it where neither text nor jsonb can
 * hold it.  What is not well formed is left to the checker.
 */
static char *
clean_escape(char *p, char *end, int *replaced)
{
	int			len = unicode_escape_len(p, end);

	if (len < 0)
		return p + Min(2, end - p);
	if (len == 0)
	{
		memcpy(p, replacement_escape(), UNICODE_ESCAPE_LEN);
		(*replaced)++;
		len = UNICODE_ESCAPE_LEN;
	}
	return p + len;
}

/*
 * JSON has backslashes in strings only, so this need not know where strings
 * begin.
 */
int
json_clean(char *text, size_t len)
{
	char	   *end = text + len;
	char	   *p = text;
	int			replaced = 0;

	while (p < end && (p = memchr(p, '\\', end - p)) != NULL)
		p = clean_escape(p, end, &replaced);
	return replaced;
}


/*
 * Cutting a page
 */

typedef struct Cutter
{
	char	   *p;				/* next byte to look at */
	char	   *end;			/* end of the page */
	const char *id_key;
	size_t		id_key_len;
	int			deepest;		/* of this element; 1 between elements */
	bool		id_unsure;		/* a key was escaped: it may be the id's */
	JsonSpan   *items;
	int			nitems;
	int			nalloc;
} Cutter;

/* Enough to read JSON whose quotes and brackets balance. */
typedef enum ByteClass
{
	BYTE_PLAIN = 0,
	BYTE_QUOTE,
	BYTE_OPEN,
	BYTE_CLOSE,
	BYTE_COMMA
} ByteClass;

static const unsigned char byte_class[UCHAR_MAX + 1] = {
	['"'] = BYTE_QUOTE,
	['{'] = BYTE_OPEN,
	['['] = BYTE_OPEN,
	['}'] = BYTE_CLOSE,
	[']'] = BYTE_CLOSE,
	[','] = BYTE_COMMA
};

/*
 * The closing quote of the string that begins at "p", behind its opening
 * quote; NULL where the page ends before.  Cleans what it crosses.
 */
static inline char *
cut_string(char *p, char *end, JsonSpan *item, bool *escaped)
{
	*escaped = false;
	for (;;)
	{
		p = unconstify(char *, find_in_string(p, end, false));
		if (p >= end)
			return NULL;
		if (*p == '"')
			return p;
		*escaped = true;
		p = clean_escape(p, end, &item->replaced);
	}
}

/*
 * The id's key ends before "p", if it is followed by a colon and not a value
 * that looks like it.  Note its value; the last one of equal keys counts, as in
 * jsonb.  Returns where to go on, NULL where the page ends.
 */
static char *
cut_id(char *p, char *end, JsonSpan *item)
{
	char	   *value;
	char	   *close;
	bool		escaped;

	p = unconstify(char *, skip_space(p, end));
	if (p == end || *p != ':')
		return p;

	item->id = NULL;
	item->id_len = 0;
	p = unconstify(char *, skip_space(p + 1, end));
	if (p == end || *p != '"')
		return p;

	value = p + 1;
	close = cut_string(value, end, item, &escaped);
	if (close == NULL)
		return NULL;
	if (!escaped)
	{
		item->id = value;
		item->id_len = close - value;
	}
	return close + 1;
}

/*
 * Cross a string of an element's top level, which may be a key.  "p" is behind
 * its opening quote.  Returns where to go on, NULL where the page ends.
 */
static char *
cut_member(Cutter *c, char *p, JsonSpan *item)
{
	bool		escaped;
	char	   *close = cut_string(p, c->end, item, &escaped);

	if (close == NULL)
		return NULL;
	if (unlikely(escaped))
	{
		const char *colon = skip_space(close + 1, c->end);

		if (colon < c->end && *colon == ':')
			c->id_unsure = true;
	}
	else if ((size_t) (close - p) == c->id_key_len &&
			 memcmp(p, c->id_key, c->id_key_len) == 0)
		return cut_id(close + 1, c->end, item);
	return close + 1;
}

/*
 * Cross one element.  Leaves c->p at the comma or bracket that ends it; false
 * where the page ends before.  The hot loop: what it needs is in variables of
 * its own, and tells strings, with which it alternates, from the rest first.
 */
static bool
cut_element(Cutter *c, JsonSpan *item)
{
	char	   *p = c->p;
	char	   *end = c->end;
	int			depth = 1;
	int			deepest = 1;
	bool		escaped;

	for (; p < end; p++)
	{
		ByteClass	kind = byte_class[(unsigned char) *p];

		if (kind == BYTE_PLAIN)
			continue;
		if (kind == BYTE_QUOTE)
		{
			if (depth != 2)
				p = cut_string(p + 1, end, item, &escaped);
			else
			{
				p = cut_member(c, p + 1, item);
				if (p != NULL)
					p--;
			}
			if (p == NULL)
				return false;
		}
		else if (kind == BYTE_OPEN)
		{
			depth++;
			deepest = Max(deepest, depth);
		}
		else if (depth == 1)
			break;
		else if (kind == BYTE_CLOSE)
			depth--;
	}
	c->p = p;
	c->deepest = deepest;
	return p < end;
}

/* What the cut can tell about an element that was crossed. */
static void
finish_element(Cutter *c, JsonSpan *item, bool page_is_utf8)
{
	const char *last = c->p;

	while (last > item->start && is_space(last[-1]))
		last--;
	item->len = last - item->start;

	if (c->id_unsure)
	{
		item->id = NULL;
		item->id_len = 0;
	}

	if (!page_is_utf8 && !json_valid_utf8(item->start, item->len))
		item->problem = "not valid UTF-8, or has a NUL byte";
	else if (item->len == 0)
		item->problem = "an element of the page is empty";
	else if (*item->start != '{')
		item->problem = "not a JSON object";
	else if (c->deepest - 1 > JSON_MAX_DEPTH)
		item->problem = "nested too deeply";
}

static JsonSpan *
new_element(Cutter *c)
{
	JsonSpan   *item;

	if (c->nitems == c->nalloc)
	{
		c->nalloc *= 2;
		c->items = repalloc(c->items, c->nalloc * sizeof(JsonSpan));
	}
	item = &c->items[c->nitems++];
	memset(item, 0, sizeof(*item));
	item->start = c->p;
	c->id_unsure = false;
	return item;
}

/* The elements, from after the opening bracket to after the closing one. */
static const char *
cut_elements(Cutter *c, bool page_is_utf8)
{
	c->p = unconstify(char *, skip_space(c->p, c->end));
	if (c->p < c->end && *c->p == ']')
	{
		c->p++;
		return NULL;
	}

	for (;;)
	{
		JsonSpan   *item;

		if (c->nitems == JSON_MAX_ELEMENTS)
			return "the array has too many elements";
		c->p = unconstify(char *, skip_space(c->p, c->end));
		item = new_element(c);
		if (!cut_element(c, item))
			return "the array is cut short";
		finish_element(c, item, page_is_utf8);
		if (*c->p == '}')
			return "brackets do not match";
		if (*c->p++ == ']')
			return NULL;
	}
}

bool
json_has_id(const JsonSpan *span)
{
	return span->id != NULL && span->id_len > 0 &&
		(span->problem == NULL || json_valid_utf8(span->id, span->id_len));
}

bool
json_cut_page(char *page, size_t len, const char *id_key,
			  JsonSpan **items, int *nitems, const char **problem)
{
	Cutter		c = {0};

	c.end = page + len;
	c.p = unconstify(char *, skip_space(page, c.end));
	c.id_key = id_key;
	c.id_key_len = strlen(id_key);
	*items = NULL;
	*nitems = 0;

	if (len > INT_MAX)
		*problem = "the page is too long";
	else if (c.p == c.end)
		*problem = "the page is empty";
	else if (*c.p != '[')
		*problem = "the page is not a JSON array";
	else
	{
		c.p++;
		c.nalloc = JSON_FIRST_ELEMENTS;
		c.items = palloc(c.nalloc * sizeof(JsonSpan));
		*problem = cut_elements(&c, json_valid_utf8(page, len));
		if (*problem == NULL && skip_space(c.p, c.end) != c.end)
			*problem = "something follows the JSON array";
		if (*problem == NULL)
		{
			*items = c.items;
			*nitems = c.nitems;
			return true;
		}
		pfree(c.items);
	}
	return false;
}


/*
 * Checking a document
 *
 * The grammar of RFC 8259, without recursion, and what PostgreSQL adds to it:
 * no U+0000, no lone surrogates, numbers that numeric can hold.  Counts on the
 * way what cJSON is going to allocate.
 */

typedef struct Checker
{
	const char *p;
	const char *end;
	size_t		nvalues;
	size_t		nstrings;		/* keys too */
	size_t		nnumbers;
	int			depth;
	bool		in_object[JSON_MAX_DEPTH];
	const char *problem;
} Checker;

typedef enum CheckResult
{
	CHECK_FAILED,
	CHECK_WHOLE,				/* a whole value was crossed */
	CHECK_INSIDE				/* inside a container that is not empty */
} CheckResult;

static bool
check_failed(Checker *c, const char *problem)
{
	c->problem = problem;
	return false;
}

/* The next byte, 0 at the end; UTF-8 was verified, so no byte is 0. */
static inline char
peek(const Checker *c)
{
	return c->p < c->end ? *c->p : '\0';
}

static inline char
peek_token(Checker *c)
{
	c->p = skip_space(c->p, c->end);
	return peek(c);
}

static bool
check_escape(Checker *c)
{
	int			len;

	if (c->end - c->p < 2)
		return check_failed(c, "a string has no end");
	switch (c->p[1])
	{
		case '"':
		case '\\':
		case '/':
		case 'b':
		case 'f':
		case 'n':
		case 'r':
		case 't':
			c->p += 2;
			return true;
		case 'u':
			len = unicode_escape_len(c->p, c->end);
			if (len < 0)
				return check_failed(c, "an escape is not valid");
			if (len == 0)
				return check_failed(c, "has U+0000 or half a surrogate pair");
			c->p += len;
			return true;
		default:
			return check_failed(c, "an escape is not valid");
	}
}

/* c->p is the opening quote. */
static inline bool
check_string(Checker *c)
{
	c->nstrings++;
	c->p++;
	for (;;)
	{
		c->p = find_in_string(c->p, c->end, true);
		switch (peek(c))
		{
			case '"':
				c->p++;
				return true;
			case '\\':
				if (!check_escape(c))
					return false;
				break;
			case '\0':
				return check_failed(c, "a string has no end");
			default:
				return check_failed(c, "a string has a control character");
		}
	}
}

/* Cross digits; how many. */
static int
check_digits(Checker *c)
{
	const char *start = c->p;

	while (peek(c) >= '0' && peek(c) <= '9')
		c->p++;
	return (int) (c->p - start);
}

static bool
check_number(Checker *c)
{
	const char *start = c->p;
	bool		zero;
	int			ndigits;

	if (*start != '-' && (*start < '0' || *start > '9'))
		return check_failed(c, "a value is missing");
	if (*start == '-')
		c->p++;
	zero = (peek(c) == '0');
	ndigits = check_digits(c);
	if (ndigits == 0 || (zero && ndigits > 1))
		return check_failed(c, "a number is not valid");
	if (peek(c) == '.')
	{
		c->p++;
		if (check_digits(c) == 0)
			return check_failed(c, "a number is not valid");
	}
	if (peek(c) == 'e' || peek(c) == 'E')
	{
		c->p++;
		if (peek(c) == '+' || peek(c) == '-')
			c->p++;
		ndigits = check_digits(c);
		if (ndigits == 0)
			return check_failed(c, "a number is not valid");
		if (ndigits > JSON_MAX_EXPONENT_DIGITS)
			return check_failed(c, "a number is out of range");
	}
	if (c->p - start > JSON_MAX_NUMBER)
		return check_failed(c, "a number is too long");
	return true;
}

/* What follows the literal is for the caller to look at. */
static bool
check_literal(Checker *c, const char *literal)
{
	size_t		len = strlen(literal);

	if ((size_t) (c->end - c->p) < len || memcmp(c->p, literal, len) != 0)
		return check_failed(c, "a literal is not valid");
	c->p += len;
	return true;
}

static CheckResult
check_open(Checker *c, bool is_object)
{
	if (c->depth == JSON_MAX_DEPTH)
	{
		c->problem = "nested too deeply";
		return CHECK_FAILED;
	}
	c->p++;
	if (peek_token(c) == (is_object ? '}' : ']'))
	{
		c->p++;
		return CHECK_WHOLE;
	}
	c->in_object[c->depth++] = is_object;
	return CHECK_INSIDE;
}

static CheckResult
check_value(Checker *c)
{
	bool		ok;

	c->nvalues++;
	switch (peek_token(c))
	{
		case '"':
			ok = check_string(c);
			break;
		case '{':
			return check_open(c, true);
		case '[':
			return check_open(c, false);
		case 't':
			ok = check_literal(c, "true");
			break;
		case 'f':
			ok = check_literal(c, "false");
			break;
		case 'n':
			ok = check_literal(c, "null");
			break;
		case '\0':
			ok = check_failed(c, "ends too early");
			break;
		default:
			c->nnumbers++;
			ok = check_number(c);
			break;
	}
	return ok ? CHECK_WHOLE : CHECK_FAILED;
}

static inline bool
check_key(Checker *c)
{
	if (peek_token(c) != '"')
		return check_failed(c, "a key is missing");
	if (!check_string(c))
		return false;
	if (peek_token(c) != ':')
		return check_failed(c, "a colon is missing");
	c->p++;
	return true;
}

/* Close what ends here; leaves c->p behind the comma, or at the end. */
static inline bool
check_after_value(Checker *c)
{
	while (c->depth > 0)
	{
		char		next = peek_token(c);

		if (next == ',')
		{
			c->p++;
			return true;
		}
		if (next == '\0')
			return check_failed(c, "ends too early");
		if (next != (c->in_object[c->depth - 1] ? '}' : ']'))
			return check_failed(c, "a comma or bracket is missing");
		c->p++;
		c->depth--;
	}
	if (peek_token(c) != '\0')
		return check_failed(c, "something follows the JSON value");
	return true;
}

static bool
check_document(Checker *c)
{
	do
	{
		if (c->depth > 0 && c->in_object[c->depth - 1] && !check_key(c))
			return false;
		switch (check_value(c))
		{
			case CHECK_FAILED:
				return false;
			case CHECK_INSIDE:
				break;
			case CHECK_WHOLE:
				if (!check_after_value(c))
					return false;
				break;
		}
	} while (c->depth > 0);
	return true;
}


/*
 * Parsing
 *
 * cJSON allocates a node for each value, a copy of each string and, since
 * 1.7.19 and in Debian's 1.7.15, one of each number.  The checker has counted
 * all of them, so one chunk of the owner's context is enough: nothing is
 * allocated, and nothing can be raised, while the hooks are ours.  They are
 * global to the process and another extension may use cJSON too: they are set
 * for this one call.  The tree is never given to cJSON_Delete.
 *
 * A release of cJSON that wants more runs out of the arena, and never over its
 * end; then it gets a larger one.
 */

/* Arenas that are tried, each twice as large as the one before. */
#define MAX_ARENAS 4

static char *arena_next;
static char *arena_end;

static void *
arena_alloc(size_t size)
{
	char	   *chunk = arena_next;
	size_t		left = arena_end - arena_next;

	/* cJSON takes NULL for out of memory */
	if (size > left || MAXALIGN(size) > left)
		return NULL;
	arena_next += MAXALIGN(size);
	return chunk;
}

static void
arena_free(void *chunk)
{
	(void) chunk;				/* the owner's context frees all of it */
}

/*
 * What cJSON is known to ask for at most: for a string two bytes more than it
 * has between its quotes, and those two are the quotes of the text; for a
 * number one byte more than it has.
 */
static size_t
arena_size(const Checker *c, size_t len)
{
	return c->nvalues * MAXALIGN(sizeof(cJSON)) +
		(c->nstrings + c->nnumbers) * MAXIMUM_ALIGNOF + MAXALIGN(len + 1);
}

static const cJSON *
parse_in_arena(const char *text, size_t len, char *arena, size_t size)
{
	cJSON_Hooks hooks = {.malloc_fn = arena_alloc,.free_fn = arena_free};
	const char *parse_end;
	const cJSON *root;

	arena_next = arena;
	arena_end = arena + size;
	cJSON_InitHooks(&hooks);
	root = cJSON_ParseWithLengthOpts(text, len, &parse_end, false);
	cJSON_InitHooks(NULL);
	arena_next = arena_end = NULL;
	return root;
}

const JsonValue *
json_parse(const char *text, size_t len, MemoryContext owner,
		   const char **problem)
{
	Checker		c;
	size_t		size;
	char	   *arena;
	const cJSON *root;

	c.p = text;
	c.end = text + len;
	c.nvalues = c.nstrings = c.nnumbers = 0;
	c.depth = 0;
	c.problem = NULL;

	if (!json_valid_utf8(text, len))
		c.problem = "not valid UTF-8, or has a NUL byte";
	else
		check_document(&c);
	*problem = c.problem;
	if (c.problem != NULL)
		return NULL;

	size = arena_size(&c, len);
	for (int i = 0; i < MAX_ARENAS; i++, size *= 2)
	{
		arena = MemoryContextAllocExtended(owner, size, MCXT_ALLOC_HUGE);
		root = parse_in_arena(text, len, arena, size);
		if (root != NULL)
			return root;
		pfree(arena);
	}
	*problem = "cJSON refused it";	/* not known to happen */
	return NULL;
}


/*
 * Reading
 */

bool
json_is_object(const JsonValue *v)
{
	return cJSON_IsObject(v);
}

bool
json_is_array(const JsonValue *v)
{
	return cJSON_IsArray(v);
}

bool
json_is_string(const JsonValue *v)
{
	return cJSON_IsString(v);
}

bool
json_is_null(const JsonValue *v)
{
	return cJSON_IsNull(v);
}

static bool
json_is_bool(const JsonValue *v)
{
	return cJSON_IsBool(v);
}

/*
 * cJSON's own lookup takes the first of equal keys; the last is what raw::jsonb
 * shows.  Looking at the first byte before calling strcmp halves the time.
 */
const JsonValue *
json_get(const JsonValue *v, const char *key)
{
	const JsonValue *found = NULL;

	if (!json_is_object(v))
		return NULL;
	for (const JsonValue *m = v->child; m != NULL; m = m->next)
	{
		if (m->string[0] == key[0] && strcmp(m->string, key) == 0)
			found = m;
	}
	return found;
}

const JsonValue *
json_first(const JsonValue *v)
{
	return json_is_object(v) || json_is_array(v) ? v->child : NULL;
}

const JsonValue *
json_next(const JsonValue *v)
{
	return v != NULL ? v->next : NULL;
}

const char *
json_key(const JsonValue *v)
{
	return v != NULL ? v->string : NULL;
}

int
json_size(const JsonValue *v)
{
	int			n = 0;

	for (v = json_first(v); v != NULL; v = v->next)
		n++;
	return n;
}

/* Numbers are compared as cJSON has them, by their doubles. */
static bool
value_holds(const JsonValue *whole, const JsonValue *part)
{
	if (json_is_object(part))
		return json_holds(whole, part, true);
	if (!json_is_array(part))
		return cJSON_Compare(whole, part, true);
	if (!json_is_array(whole) || json_size(whole) != json_size(part))
		return false;
	whole = json_first(whole);
	for (part = json_first(part); part != NULL; part = json_next(part), whole = json_next(whole))
	{
		if (!value_holds(whole, part))
			return false;
	}
	return true;
}

bool
json_holds(const JsonValue *whole, const JsonValue *part, bool values)
{
	if (!json_is_object(whole) || !json_is_object(part))
		return false;
	for (const JsonValue *m = json_first(part); m != NULL; m = json_next(m))
	{
		/* of equal keys the last counts, here too */
		const JsonValue *wanted = json_get(part, json_key(m));
		const JsonValue *found = json_get(whole, json_key(m));

		if (found == NULL && json_is_null(wanted))
			continue;
		if (found == NULL || (values && !value_holds(found, wanted)))
			return false;
	}
	return true;
}

const char *
json_string(const JsonValue *v)
{
	return json_is_string(v) ? v->valuestring : NULL;
}

const char *
json_get_string(const JsonValue *v, const char *key)
{
	return json_string(json_get(v, key));
}

int
json_get_bool(const JsonValue *v, const char *key)
{
	const JsonValue *member = json_get(v, key);

	return json_is_bool(member) ? (cJSON_IsTrue(member) ? 1 : 0) : -1;
}

bool
json_get_int64(const JsonValue *v, const char *key, int64 *result)
{
	const JsonValue *member = json_get(v, key);
	double		number;

	if (!cJSON_IsNumber(member))
		return false;
	number = member->valuedouble;
	if (number <= -JSON_EXACT_INTEGERS || number >= JSON_EXACT_INTEGERS ||
		number != (double) (int64) number)
		return false;
	*result = (int64) number;
	return true;
}


/*
 * Writing
 */

/*
 * Into memory of ours, so that cJSON allocates nothing and nothing is lost if
 * palloc raises.  cJSON cannot say how much it needs.
 */
char *
json_print(const JsonValue *v)
{
	if (v == NULL)
		return pstrdup("null");
	for (int size = JSON_PRINT_SIZE;; size *= 2)
	{
		char	   *buffer = palloc(size);

		if (cJSON_PrintPreallocated(unconstify(JsonValue *, v), buffer, size,
									false))
			return buffer;
		pfree(buffer);
	}
}

/* PostgreSQL's own looks at ASCII alone, so UTF-8 passes in any encoding. */
void
json_append_string(StringInfo buf, const char *text)
{
	escape_json(buf, text);
}
