/*-------------------------------------------------------------------------
 *
 * accessreq_unit.c
 *	  json.c and item.c behind SQL functions.
 *
 * Unit tests run in a real server, with real memory contexts and ereport: a
 * stand-in for these would hide what is hard about them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <float.h>

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "portability/instr_time.h"
#include "unit.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(unit_cut);
PG_FUNCTION_INFO_V1(unit_clean);
PG_FUNCTION_INFO_V1(unit_parse);
PG_FUNCTION_INFO_V1(unit_get);
PG_FUNCTION_INFO_V1(unit_get_int);
PG_FUNCTION_INFO_V1(unit_time);
PG_FUNCTION_INFO_V1(unit_decode);
PG_FUNCTION_INFO_V1(unit_bench);

/* Pages of the API have 250 items. */
#define BENCH_ITEMS 250

/* Seed of the hash that is measured; any will do. */
#define BENCH_HASH_SEED ITEM_DECODER_VERSION

static void
refuse(const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg_internal("%s", problem)));
}

static text *
bytes_as_text(const char *bytes, size_t len)
{
	return cstring_to_text_with_len(bytes, (int) len);
}

/* unit_cut(page bytea, id_key text): rows (item, id, replaced, problem) */
Datum
unit_cut(PG_FUNCTION_ARGS)
{
	bytea	   *page = PG_GETARG_BYTEA_P_COPY(0);
	char	   *id_key = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JsonSpan   *items;
	int			nitems;
	const char *problem;

	InitMaterializedSRF(fcinfo, 0);
	if (!json_cut_page(VARDATA(page), VARSIZE(page) - VARHDRSZ, id_key,
					   &items, &nitems, &problem))
		refuse(problem);
	for (int i = 0; i < nitems; i++)
	{
		JsonSpan   *item = &items[i];
		Datum		values[4];
		bool		nulls[4] = {0};

		values[0] = PointerGetDatum(bytes_as_text(item->start, item->len));
		nulls[1] = item->id == NULL;
		if (item->id != NULL)
			values[1] = PointerGetDatum(bytes_as_text(item->id, item->id_len));
		values[2] = Int32GetDatum(item->replaced);
		nulls[3] = item->problem == NULL;
		if (item->problem != NULL)
			values[3] = CStringGetTextDatum(item->problem);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
unit_clean(PG_FUNCTION_ARGS)
{
	bytea	   *text = PG_GETARG_BYTEA_P_COPY(0);

	json_clean(VARDATA(text), VARSIZE(text) - VARHDRSZ);
	PG_RETURN_BYTEA_P(text);
}

static const JsonValue *
parse_argument(bytea *text)
{
	const char *problem;
	const JsonValue *root = json_parse(VARDATA_ANY(text),
									   VARSIZE_ANY_EXHDR(text),
									   CurrentMemoryContext, &problem);

	if (root == NULL)
		refuse(problem);
	return root;
}

/* The document, parsed and printed again. */
Datum
unit_parse(PG_FUNCTION_ARGS)
{
	const JsonValue *root = parse_argument(PG_GETARG_BYTEA_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text(json_print(root)));
}

/* A member, printed. */
Datum
unit_get(PG_FUNCTION_ARGS)
{
	const JsonValue *root = parse_argument(PG_GETARG_BYTEA_PP(0));
	const JsonValue *v = json_get(root,
								  text_to_cstring(PG_GETARG_TEXT_PP(1)));

	if (v == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(json_print(v)));
}

Datum
unit_get_int(PG_FUNCTION_ARGS)
{
	const JsonValue *root = parse_argument(PG_GETARG_BYTEA_PP(0));
	int64		result;

	if (!json_get_int64(root, text_to_cstring(PG_GETARG_TEXT_PP(1)), &result))
		PG_RETURN_NULL();
	PG_RETURN_INT64(result);
}

Datum
unit_time(PG_FUNCTION_ARGS)
{
	TimestampTz time = item_parse_time(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (time == ITEM_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(time);
}


/*
 * An item as JSON; what is absent is left out.
 */

static void
dump_key(StringInfo buf, const char *key)
{
	char		last = buf->data[buf->len - 1];

	if (last != '{' && last != '[')
		appendStringInfoChar(buf, ',');
	if (key != NULL)
	{
		json_append_string(buf, key);
		appendStringInfoChar(buf, ':');
	}
}

static void
dump_text(StringInfo buf, const char *key, const char *text)
{
	if (text == NULL)
		return;
	dump_key(buf, key);
	json_append_string(buf, text);
}

static void
dump_json(StringInfo buf, const char *key, const char *json)
{
	if (json == NULL)
		return;
	dump_key(buf, key);
	appendStringInfoString(buf, json);
}

static void
dump_bool(StringInfo buf, const char *key, int value)
{
	if (value != -1)
		dump_json(buf, key, value ? "true" : "false");
}

static void
dump_time(StringInfo buf, const char *key, TimestampTz time)
{
	if (time != ITEM_NO_TIME)
		dump_text(buf, key, timestamptz_to_str(time));
}

static void
dump_ref(StringInfo buf, const char *key, const ItemRef *ref)
{
	if (ref->type == NULL && ref->id == NULL && ref->name == NULL)
		return;
	dump_key(buf, key);
	appendStringInfoChar(buf, '{');
	dump_text(buf, "type", ref->type);
	dump_text(buf, "id", ref->id);
	dump_text(buf, "name", ref->name);
	appendStringInfoChar(buf, '}');
}

static void
dump_texts(StringInfo buf, const char *key, const char **texts, int n)
{
	if (n < 0)
		return;
	dump_key(buf, key);
	appendStringInfoChar(buf, '[');
	for (int i = 0; i < n; i++)
		dump_text(buf, NULL, texts[i]);
	appendStringInfoChar(buf, ']');
}

static void
dump_approval(StringInfo buf, const ItemApproval *a)
{
	dump_key(buf, NULL);
	appendStringInfoChar(buf, '{');
	dump_text(buf, "approval_id", a->approval_id);
	dump_text(buf, "status", a->status);
	dump_text(buf, "scheme", a->scheme);
	dump_bool(buf, "forwarded", a->forwarded);
	dump_ref(buf, "original_owner", &a->original_owner);
	dump_ref(buf, "current_owner", &a->current_owner);
	dump_ref(buf, "reviewed_by", &a->reviewed_by);
	dump_text(buf, "comment", a->comment);
	dump_time(buf, "modified", a->modified);
	dump_time(buf, "remove_date", a->remove_date);
	dump_json(buf, "timeout_config", a->timeout_config);
	dump_text(buf, "error_text", a->error_text);
	appendStringInfoChar(buf, '}');
}

static void
dump_phase(StringInfo buf, const ItemPhase *p)
{
	dump_key(buf, NULL);
	appendStringInfoChar(buf, '{');
	dump_text(buf, "name", p->name);
	dump_text(buf, "state", p->state);
	dump_text(buf, "result", p->result);
	dump_time(buf, "started", p->started);
	dump_time(buf, "finished", p->finished);
	dump_text(buf, "phase_reference", p->phase_reference);
	appendStringInfoChar(buf, '}');
}

static void
dump_work_item(StringInfo buf, const ItemWorkItem *w)
{
	dump_key(buf, NULL);
	appendStringInfoChar(buf, '{');
	dump_text(buf, "status", w->status);
	dump_bool(buf, "forwarded", w->forwarded);
	dump_ref(buf, "original_owner", &w->original_owner);
	dump_ref(buf, "current_owner", &w->current_owner);
	dump_time(buf, "modified", w->modified);
	appendStringInfoChar(buf, '}');
}

static void
dump_children(StringInfo buf, const StatusItem *item)
{
	dump_key(buf, "approvals");
	appendStringInfoChar(buf, '[');
	for (int i = 0; i < item->napprovals; i++)
		dump_approval(buf, &item->approvals[i]);
	appendStringInfoChar(buf, ']');
	dump_key(buf, "phases");
	appendStringInfoChar(buf, '[');
	for (int i = 0; i < item->nphases; i++)
		dump_phase(buf, &item->phases[i]);
	appendStringInfoChar(buf, ']');
	dump_key(buf, "work_items");
	appendStringInfoChar(buf, '[');
	for (int i = 0; i < item->nwork_items; i++)
		dump_work_item(buf, &item->work_items[i]);
	appendStringInfoChar(buf, ']');
}

char *
unit_dump_item(const StatusItem *item)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	dump_text(&buf, "account_activity_item_id", item->account_activity_item_id);
	dump_text(&buf, "access_request_id", item->access_request_id);
	dump_text(&buf, "item_id", item->item_id);
	dump_text(&buf, "item_name", item->item_name);
	dump_text(&buf, "item_type", item->item_type);
	dump_text(&buf, "request_type", item->request_type);
	dump_text(&buf, "state", item->state);
	dump_ref(&buf, "requester", &item->requester);
	dump_ref(&buf, "requested_for", &item->requested_for);
	dump_text(&buf, "requester_comment", item->requester_comment);
	dump_time(&buf, "created", item->created);
	dump_time(&buf, "modified", item->modified);
	dump_time(&buf, "start_date", item->start_date);
	dump_time(&buf, "remove_date", item->remove_date);
	dump_bool(&buf, "cancelable", item->cancelable);
	dump_text(&buf, "cancel_comment", item->cancel_comment);
	dump_time(&buf, "cancelled_at", item->cancelled_at);
	dump_ref(&buf, "cancelled_by", &item->cancelled_by);
	dump_text(&buf, "sod_state", item->sod_state);
	dump_texts(&buf, "sod_policies", item->sod_policies, item->nsod_policies);
	dump_text(&buf, "description", item->description);
	dump_text(&buf, "privilege_level", item->privilege_level);
	dump_texts(&buf, "source_names", item->source_names, item->nsource_names);
	dump_text(&buf, "error_text", item->error_text);
	dump_json(&buf, "client_metadata", item->client_metadata);
	dump_children(&buf, item);
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

/* unit_decode(item bytea): the struct as jsonb's text */
Datum
unit_decode(PG_FUNCTION_ARGS)
{
	bytea	   *text = PG_GETARG_BYTEA_PP(0);
	StatusItem	item;
	const char *problem;

	if (!item_decode(VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text),
					 CurrentMemoryContext, &item, &problem))
		refuse(problem);
	PG_RETURN_TEXT_P(cstring_to_text(unit_dump_item(&item)));
}


/*
 * unit_bench(page bytea, rounds int): rows (part, microseconds an item, bytes
 * an item), over a page of 250 items made of those given.
 */

typedef struct Bench
{
	ReturnSetInfo *rsinfo;
	int			rounds;
	MemoryContext cxt;			/* reset after each item or page */
	char	   *page;
	size_t		page_len;
	JsonSpan   *items;
	int			nitems;
	uint64		sink;			/* keeps the compiler from leaving work out */
} Bench;

typedef void (*BenchPage) (Bench *bench);

static void
bench_verify(Bench *b)
{
	b->sink += json_valid_utf8(b->page, b->page_len);
}

static void
bench_cut(Bench *b)
{
	JsonSpan   *items;
	int			nitems;
	const char *problem;
	MemoryContext old = MemoryContextSwitchTo(b->cxt);

	if (!json_cut_page(b->page, b->page_len, ITEM_ID_KEY, &items, &nitems,
					   &problem))
		refuse(problem);
	b->sink += nitems;
	MemoryContextSwitchTo(old);
	MemoryContextReset(b->cxt);
}

static void
bench_hash(Bench *b)
{
	for (int i = 0; i < b->nitems; i++)
		b->sink += hash_bytes_extended((unsigned char *) b->items[i].start,
									   (int) b->items[i].len, BENCH_HASH_SEED);
}

static void
bench_parse(Bench *b)
{
	const char *problem;

	for (int i = 0; i < b->nitems; i++)
	{
		if (json_parse(b->items[i].start, b->items[i].len, b->cxt,
					   &problem) == NULL)
			refuse(problem);
		MemoryContextReset(b->cxt);
	}
}

static void
bench_decode(Bench *b)
{
	const char *problem;
	StatusItem	item;

	for (int i = 0; i < b->nitems; i++)
	{
		if (!item_decode(b->items[i].start, b->items[i].len, b->cxt, &item,
						 &problem))
			refuse(problem);
		b->sink += item.napprovals;
		MemoryContextReset(b->cxt);
	}
}

static void
bench_run(Bench *b, const char *part, BenchPage page)
{
	instr_time	start;
	instr_time	end;
	double		best = DBL_MAX;
	Datum		values[3];
	bool		nulls[3] = {0};

	/* the best of all rounds: the rest is what others do on this machine */
	for (int i = 0; i < b->rounds; i++)
	{
		INSTR_TIME_SET_CURRENT(start);
		page(b);
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		best = Min(best, INSTR_TIME_GET_DOUBLE(end));
	}
	values[0] = CStringGetTextDatum(part);
	values[1] = Float8GetDatum(best * USECS_PER_SEC / b->nitems);
	values[2] = Int32GetDatum((int32) (b->page_len / b->nitems));
	tuplestore_putvalues(b->rsinfo->setResult, b->rsinfo->setDesc, values,
						 nulls);
}

static void
bench_make_page(Bench *b, bytea *sample)
{
	StringInfoData buf;
	const char *problem;

	if (!json_cut_page(VARDATA(sample), VARSIZE(sample) - VARHDRSZ, ITEM_ID_KEY,
					   &b->items, &b->nitems, &problem))
		refuse(problem);
	initStringInfo(&buf);
	for (int i = 0; i < BENCH_ITEMS; i++)
	{
		appendStringInfoChar(&buf, i == 0 ? '[' : ',');
		appendBinaryStringInfo(&buf, b->items[i % b->nitems].start,
							   (int) b->items[i % b->nitems].len);
	}
	appendStringInfoChar(&buf, ']');
	b->page = buf.data;
	b->page_len = buf.len;
	if (!json_cut_page(b->page, b->page_len, ITEM_ID_KEY, &b->items, &b->nitems,
					   &problem))
		refuse(problem);
}

Datum
unit_bench(PG_FUNCTION_ARGS)
{
	Bench		b = {.rounds = PG_GETARG_INT32(1)};

	InitMaterializedSRF(fcinfo, 0);
	b.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	b.cxt = AllocSetContextCreate(CurrentMemoryContext, "unit_bench",
								  ALLOCSET_DEFAULT_SIZES);
	bench_make_page(&b, PG_GETARG_BYTEA_P_COPY(0));
	bench_run(&b, "verify", bench_verify);
	bench_run(&b, "cut (verify included)", bench_cut);
	bench_run(&b, "hash", bench_hash);
	bench_run(&b, "parse", bench_parse);
	bench_run(&b, "decode (parse included)", bench_decode);
	return (Datum) 0;
}
