/*-------------------------------------------------------------------------
 *
 * fuzz.c
 *	  Damaged items against json.c, item.c and PostgreSQL's own parsers.
 *
 * What must hold, whatever a tenant or a gateway sends:
 * - what we accept, json_in and jsonb_in accept (so it can be stored, and ->>
 *	 works on it), and what we refuse, they refuse, apart from our own limits;
 * - the id that the cut saw is the id of the parsed item;
 * - printing a document again does not change it;
 * - nothing is read beyond the end (the texts end where a page of memory that
 *	 cannot be read begins), nothing is raised, no memory is left behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/pg_prng.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "unit.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(unit_fuzz);

/* Room for a text under test; samples are a few KB. */
#define FUZZ_MAX_TEXT 65536
#define FUZZ_MAX_MUTATIONS 6
#define FUZZ_MAX_ITEMS 3

/* Doubles print what has at most this many digits as it was. */
#define FUZZ_EXACT_DIGITS 15

typedef struct Fuzz
{
	pg_prng_state prng;
	JsonSpan   *samples;
	int			nsamples;
	MemoryContext cxt;			/* reset after each text */
	char	   *guarded;		/* FUZZ_MAX_TEXT bytes, then the abyss */
	char		text[FUZZ_MAX_TEXT];
	size_t		len;
	int64		pages;
	int64		pages_cut;
	int64		items;
	int64		accepted;
	int64		decoded;
	int64		replaced;
	int64		limits;			/* refused by limits of ours alone */
} Fuzz;

/* What breaks parsers; inserted, or put over what is there. */
#define TOKEN(s) {s, sizeof(s) - 1}
static const struct
{
	const char *text;
	int			len;
}			tokens[] = {
	TOKEN("\\u0000"), TOKEN("\\\\u0000"), TOKEN("\\\\\\u0000"),
	TOKEN("\\ud800"), TOKEN("\\uDFFF"), TOKEN("\\ud83d\\ude00"),
	TOKEN("\\ud83d\\u0000"), TOKEN("\\ud83d\\ud83d\\ude00"), TOKEN("\\u12"),
	TOKEN("\\u00zz"), TOKEN("\\u003d"), TOKEN("\\x41"), TOKEN("\\"),
	TOKEN("\\\\"), TOKEN("\\\""), TOKEN("\""), TOKEN("\"\""), TOKEN("\\/"),
	TOKEN("01"), TOKEN("-01"), TOKEN("1."), TOKEN("1.e5"), TOKEN("-.5"),
	TOKEN(".5"), TOKEN("+1"), TOKEN("-"), TOKEN("-0"), TOKEN("1e5"),
	TOKEN("1E-7"), TOKEN("1e"), TOKEN("1e+"), TOKEN("1e9999"),
	TOKEN("1e99999"), TOKEN("1e-99999"), TOKEN("1e999999999999"),
	TOKEN("0x10"), TOKEN("12345678901234567890"), TOKEN("NaN"),
	TOKEN("Infinity"), TOKEN("-Infinity"),
	TOKEN("1234567890123456789012345678901234567890123456789012345678901234"),
	TOKEN("true"), TOKEN("false"), TOKEN("null"), TOKEN("nul"),
	TOKEN("nullx"), TOKEN("True"),
	TOKEN("{"), TOKEN("}"), TOKEN("["), TOKEN("]"), TOKEN(","), TOKEN(":"),
	TOKEN("{}"), TOKEN("[]"), TOKEN(",,"), TOKEN("[1,]"), TOKEN("{\"a\":1,}"),
	TOKEN("{\"a\":}"), TOKEN("{\"\":null}"), TOKEN("{1:2}"),
	TOKEN("\"accountActivityItemId\":\"other\","),
	TOKEN("\"accountActivityItemId\":7,"),
	TOKEN("\"accountActivityItemId\" : \"a\\u0062\","),
	TOKEN("\"account\\u0041ctivityItemId\":\"hidden\","),
	TOKEN("{\"accountActivityItemId\":\"inner\"}"),
	TOKEN("\"state\":[1],"), TOKEN("\"requestedFor\":[[]],"),
	TOKEN("\"errorMessages\":[[],[\"x\"],{\"text\":1},\"y\",[{}]],"),
	TOKEN("\"approvalDetails\":[null,1,{}],"),
	TOKEN("\xff"), TOKEN("\xc3"), TOKEN("\xed\xa0\x80"), TOKEN("\xc0\x80"),
	TOKEN("\xef\xbb\xbf"), TOKEN("\xf4\x90\x80\x80"), TOKEN("\xc3\xa9"),
	TOKEN("\0"), TOKEN("\t"), TOKEN("\n"), TOKEN("\f"), TOKEN("\x01"),
	TOKEN("\x1f"), TOKEN("\x7f"), TOKEN(" "), TOKEN("\r\n"), TOKEN("/**/")
};

static size_t
pick(Fuzz *f, size_t n)
{
	return pg_prng_uint64_range(&f->prng, 0, n - 1);
}


/*
 * Making texts
 */

static void
append(Fuzz *f, const char *bytes, size_t len)
{
	len = Min(len, FUZZ_MAX_TEXT - f->len);
	memcpy(f->text + f->len, bytes, len);
	f->len += len;
}

/* Put "bytes" at "at" in the place of "old" bytes. */
static void
replace_bytes(Fuzz *f, size_t at, size_t old, const char *bytes, size_t len)
{
	old = Min(old, f->len - at);
	if (f->len - old + len > FUZZ_MAX_TEXT)
		return;
	memmove(f->text + at + len, f->text + at + old, f->len - at - old);
	memcpy(f->text + at, bytes, len);
	f->len = f->len - old + len;
}

/* A place where a number, literal or string begins: after a colon. */
static size_t
pick_value(Fuzz *f)
{
	size_t		at = pick(f, f->len);
	const char *colon = memchr(f->text + at, ':', f->len - at);

	return colon != NULL ? (size_t) (colon - f->text) + 1 : at;
}

static void
mutate(Fuzz *f)
{
	size_t		token = pick(f, lengthof(tokens));
	size_t		at = pick(f, f->len);
	char		chunk[64];
	size_t		len = 1 + pick(f, sizeof(chunk));
	char		byte = (char) pick(f, 256);

	switch (pick(f, 8))
	{
		case 0:
			f->text[at] = byte;
			break;
		case 1:
			replace_bytes(f, at, len, "", 0);
			break;
		case 2:
			len = Min(len, f->len - at);
			memcpy(chunk, f->text + at, len);
			replace_bytes(f, pick(f, f->len), 0, chunk, len);
			break;
		case 3:
			replace_bytes(f, at, 0, tokens[token].text, tokens[token].len);
			break;
		case 4:
			replace_bytes(f, at, tokens[token].len, tokens[token].text,
				   tokens[token].len);
			break;
		case 5:
			/* a value in the place of null, if it is one */
			at = pick_value(f);
			replace_bytes(f, at, 4, tokens[token].text, tokens[token].len);
			break;
		case 6:
			/* a value and a comma before a value's key: valid quite often */
			replace_bytes(f, 1, 0, tokens[token].text, tokens[token].len);
			break;
		default:
			f->len = Max(1, f->len - len);	/* cut short */
			break;
	}
	if (f->len == 0)
		append(f, " ", 1);
}

static void
make_items(Fuzz *f, int nitems)
{
	f->len = 0;
	for (int i = 0; i < nitems; i++)
	{
		JsonSpan   *sample = &f->samples[pick(f, f->nsamples)];

		if (i > 0)
			append(f, ",", 1);
		append(f, sample->start, sample->len);
	}
}

/* The text moved to the end of what can be read. */
static char *
guard_text(Fuzz *f)
{
	char	   *text = f->guarded + FUZZ_MAX_TEXT - f->len;

	memcpy(text, f->text, f->len);
	return text;
}


/*
 * Checking
 */

static void
violated(const char *rule, const char *text, size_t len, const char *detail)
{
	bytea	   *bytes = (bytea *) cstring_to_text_with_len(text, (int) len);
	char	   *hex = DatumGetCString(DirectFunctionCall1(byteaout,
												   PointerGetDatum(bytes)));

	ereport(ERROR,
			(errcode(ERRCODE_ASSERT_FAILURE),
			 errmsg_internal("fuzz: %s: %s", rule, detail ? detail : ""),
			 errdetail_internal("%s", hex)));
}

/* Does PostgreSQL take it as this type?  *result is then the value. */
static bool
input_accepts(PGFunction input, char *text, Datum *result)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool accepted = true;

	PG_TRY();
	{
		*result = DirectFunctionCall1(input, CStringGetDatum(text));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		FlushErrorState();
		accepted = false;
	}
	PG_END_TRY();
	return accepted;
}

static bool
server_accepts(const char *text, size_t len, Datum *jsonb)
{
	char	   *copy = pnstrdup(text, len);
	Datum		json;

	return json_valid_utf8(text, len) &&
		input_accepts(json_in, copy, &json) &&
		input_accepts(jsonb_in, copy, jsonb);
}

static bool
is_our_limit(const char *problem)
{
	return strcmp(problem, "nested too deeply") == 0 ||
		strcmp(problem, "a number is too long") == 0 ||
		strcmp(problem, "a number is out of range") == 0;
}

/* Has it only numbers that a double keeps? */
static bool
numbers_are_exact(const char *text, size_t len)
{
	int			digits = 0;

	for (size_t i = 0; i < len; i++)
	{
		if (text[i] >= '0' && text[i] <= '9')
			digits++;
		else if (digits > 0 && (text[i] == 'e' || text[i] == 'E'))
			return false;
		else if (text[i] != '.')
			digits = 0;
		if (digits > FUZZ_EXACT_DIGITS)
			return false;
	}
	return true;
}

static void
check_printed(const JsonValue *root, const char *text, size_t len, Datum jsonb)
{
	char	   *printed = json_print(root);
	Datum		again;

	if (!input_accepts(jsonb_in, printed, &again))
		violated("printed is refused", text, len, printed);
	if (numbers_are_exact(text, len) &&
		!DatumGetBool(DirectFunctionCall2(jsonb_eq, jsonb, again)))
		violated("printed differs", text, len, printed);
}

static void
check_decode(Fuzz *f, const char *text, size_t len)
{
	StatusItem	item;
	const char *problem = NULL;
	Datum		jsonb;
	char	   *dump;

	if (!item_decode(text, len, f->cxt, &item, &problem))
	{
		if (problem == NULL)
			violated("refused without a problem", text, len, NULL);
		return;
	}
	f->decoded++;
	dump = unit_dump_item(&item);
	if (!json_valid_utf8(dump, strlen(dump)) ||
		!input_accepts(jsonb_in, dump, &jsonb))
		violated("decoded is not text", text, len, dump);
}

/* A cleaned text, with what the cut said of it. */
static const JsonValue *
check_text(Fuzz *f, const char *text, size_t len, const char *cut_problem)
{
	const char *problem;
	const JsonValue *root = json_parse(text, len, f->cxt, &problem);
	Datum		jsonb;
	bool		server = server_accepts(text, len, &jsonb);

	f->items++;
	if (root != NULL && !server)
		violated("accepted, but the server refuses", text, len, NULL);
	if (root == NULL && server)
	{
		if (!is_our_limit(problem))
			violated("refused, but the server accepts", text, len, problem);
		f->limits++;
	}
	if (root != NULL && cut_problem != NULL && json_is_object(root))
		violated("parses, but the cut refused", text, len, cut_problem);
	if (root == NULL)
		return NULL;

	f->accepted++;
	check_printed(root, text, len, jsonb);
	check_decode(f, text, len);
	return root;
}

static void
check_id(const JsonSpan *item, const JsonValue *root)
{
	const char *id = json_get_string(root, ITEM_ID_KEY);

	if (item->id == NULL)
	{
		/* allowed to be unsure where there are escapes */
		if (id != NULL && memchr(item->start, '\\', item->len) == NULL)
			violated("the cut missed the id", item->start, item->len, id);
	}
	else if (id == NULL || strlen(id) != item->id_len ||
			 memcmp(id, item->id, item->id_len) != 0)
		violated("the cut's id differs", item->start, item->len, id);
}

static void
fuzz_page(Fuzz *f)
{
	char	   *page = guard_text(f);
	JsonSpan   *items;
	int			nitems;
	const char *problem = NULL;

	f->pages++;
	if (!json_cut_page(page, f->len, ITEM_ID_KEY, &items, &nitems, &problem))
	{
		Datum		jsonb;

		json_clean(page, f->len);
		if (problem == NULL)
			violated("page refused without a problem", page, f->len, NULL);
		if (server_accepts(page, f->len, &jsonb) && *page == '[')
			violated("page refused, but the server accepts", page, f->len,
					 problem);
		return;
	}
	f->pages_cut++;
	for (int i = 0; i < nitems; i++)
	{
		const JsonValue *root;

		f->replaced += items[i].replaced;
		if (json_clean(items[i].start, items[i].len) != 0 &&
			items[i].problem == NULL &&
			json_parse(items[i].start, items[i].len, f->cxt, &problem) != NULL)
			violated("the cut did not clean", items[i].start, items[i].len,
					 NULL);
		root = check_text(f, items[i].start, items[i].len, items[i].problem);
		if (root != NULL && items[i].problem == NULL)
			check_id(&items[i], root);
	}
}

static void
fuzz_one(Fuzz *f)
{
	MemoryContext old = MemoryContextSwitchTo(f->cxt);
	bool		as_page = pg_prng_bool(&f->prng);
	int			nmutations = (int) pick(f, FUZZ_MAX_MUTATIONS + 1);

	make_items(f, as_page ? 1 + (int) pick(f, FUZZ_MAX_ITEMS) : 1);
	for (int i = 0; i < nmutations; i++)
		mutate(f);

	if (as_page)
	{
		replace_bytes(f, 0, 0, "[", 1);
		append(f, "]", 1);
		if (pick(f, 10) == 0)
			mutate(f);
		fuzz_page(f);
	}
	else
	{
		char	   *text = guard_text(f);

		f->replaced += json_clean(text, f->len);
		if (json_clean(text, f->len) != 0)
			violated("cleaned twice", text, f->len, NULL);
		check_text(f, text, f->len, NULL);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(f->cxt);
}

static void
map_guarded(Fuzz *f)
{
	size_t		guard = sysconf(_SC_PAGESIZE);

	f->guarded = mmap(NULL, FUZZ_MAX_TEXT + guard, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->guarded == MAP_FAILED ||
		mprotect(f->guarded + FUZZ_MAX_TEXT, guard, PROT_NONE) != 0)
		elog(ERROR, "could not map memory: %m");
}

static void
return_counts(FunctionCallInfo fcinfo, const Fuzz *f, int64 growth)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[8];
	bool		nulls[8] = {0};

	values[0] = Int64GetDatum(f->pages);
	values[1] = Int64GetDatum(f->pages_cut);
	values[2] = Int64GetDatum(f->items);
	values[3] = Int64GetDatum(f->accepted);
	values[4] = Int64GetDatum(f->decoded);
	values[5] = Int64GetDatum(f->replaced);
	values[6] = Int64GetDatum(f->limits);
	values[7] = Int64GetDatum(growth);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * unit_fuzz(page bytea, seed bigint, n int): counts, and how many bytes of
 * malloc() are in use more than before.  Raises where a rule is violated.
 */
Datum
unit_fuzz(PG_FUNCTION_ARGS)
{
	bytea	   *page = PG_GETARG_BYTEA_P_COPY(0);
	int			n = PG_GETARG_INT32(2);
	Fuzz	   *f = palloc0(sizeof(Fuzz));
	const char *problem;
	size_t		before;

	InitMaterializedSRF(fcinfo, 0);
	f->cxt = AllocSetContextCreate(CurrentMemoryContext, "unit_fuzz",
								   ALLOCSET_DEFAULT_SIZES);
	pg_prng_seed(&f->prng, (uint64) PG_GETARG_INT64(1));
	if (!json_cut_page(VARDATA(page), VARSIZE(page) - VARHDRSZ, ITEM_ID_KEY,
					   &f->samples, &f->nsamples, &problem))
		elog(ERROR, "the samples are no page: %s", problem);
	map_guarded(f);

	fuzz_one(f);				/* caches fill */
	before = mallinfo2().uordblks;
	for (int i = 1; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		fuzz_one(f);
	}
	return_counts(fcinfo, f, (int64) (mallinfo2().uordblks - before));
	munmap(f->guarded, FUZZ_MAX_TEXT + sysconf(_SC_PAGESIZE));
	return (Datum) 0;
}
