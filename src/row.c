/*-------------------------------------------------------------------------
 *
 * row.c
 *	  A status item as Datums.
 *
 * The order of columns is written down here once, for the synced tables and
 * for what the live functions return.  It is also the border between the
 * tenant's encoding, UTF-8, and the server's.  What comes in was verified as
 * UTF-8 without NUL when it was read (json.h), so a UTF-8 server takes the
 * bytes as they are; SQL_ASCII does too, having no way to convert.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "row.h"

/* First code point that is not the same in all server encodings. */
#define FIRST_NON_ASCII 0x80

/* "\uXXXX" */
#define UNICODE_ESCAPE_LENGTH 6

/* A row being filled from left to right. */
typedef struct RowCursor
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
} RowCursor;

/*
 * Text in the server's encoding: the argument itself, or a palloc'd copy.
 * *len is the length before and after.
 */
static const char *
to_server(const char *utf8, size_t *len)
{
	const char *converted;

	if (GetDatabaseEncoding() == PG_UTF8 ||
		GetDatabaseEncoding() == PG_SQL_ASCII)
		return utf8;
	converted = pg_any_to_server(utf8, (int) *len, PG_UTF8);
	if (converted != utf8)
		*len = strlen(converted);
	return converted;
}

Datum
row_text(const char *utf8, size_t len)
{
	const char *text = to_server(utf8, &len);

	return PointerGetDatum(cstring_to_text_with_len(text, (int) len));
}

char *
row_cstring(const char *utf8)
{
	size_t		len = strlen(utf8);
	const char *text = to_server(utf8, &len);

	return text == utf8 ? pstrdup(utf8) : unconstify(char *, text);
}

/* Value of the four hexadecimal digits of an escape, or -1. */
static int
escape_value(const char *escape, const char *end)
{
	int			value = 0;

	if (end - escape < UNICODE_ESCAPE_LENGTH || escape[0] != '\\' || escape[1] != 'u')
		return -1;
	for (int i = 2; i < UNICODE_ESCAPE_LENGTH; i++)
	{
		unsigned char c = escape[i];

		value <<= 4;
		if (c >= '0' && c <= '9')
			value |= c - '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			value |= (c | 0x20) - 'a' + 10;
		else
			return -1;
	}
	return value;
}

/*
 * JSON text whose escapes of non-ASCII characters are replaced by the
 * characters, palloc'd.
 *
 * Where the server's encoding is not UTF-8, PostgreSQL converts an escape only
 * when a value is read from the json, and then one character that cannot be
 * converted makes every key of that row raise.  Written out, it is converted,
 * or refused, when it is stored.
 */
static char *
unescape_json(const char *json, size_t *len)
{
	const char *end = json + *len;
	char	   *result = palloc(*len + 1);	/* never longer than the escapes */
	char	   *out = result;

	while (json < end)
	{
		int			value = *json == '\\' ? escape_value(json, end) : -1;
		int			length = UNICODE_ESCAPE_LENGTH;
		pg_wchar	c = value;

		if (value < FIRST_NON_ASCII)
		{
			/* an escape's second byte must not be taken for a beginning */
			if (*json == '\\' && json + 1 < end)
				*out++ = *json++;
			*out++ = *json++;
			continue;
		}
		if (is_utf16_surrogate_first(c))
		{
			int			second = escape_value(json + length, end);

			if (second >= 0 && is_utf16_surrogate_second((pg_wchar) second))
			{
				c = surrogate_pair_to_codepoint(c, (pg_wchar) second);
				length += UNICODE_ESCAPE_LENGTH;
			}
		}
		unicode_to_utf8(c, (unsigned char *) out);
		out += pg_utf_mblen((unsigned char *) out);
		json += length;
	}
	*out = '\0';
	*len = out - result;
	return result;
}

/* JSON text in the server's encoding; as to_server(). */
static const char *
json_to_server(const char *utf8, size_t *len)
{
	if (GetDatabaseEncoding() != PG_UTF8 && memchr(utf8, '\\', *len) != NULL)
		utf8 = unescape_json(utf8, len);
	return to_server(utf8, len);
}

/* For where nothing may be raised: outside of any subtransaction. */
Datum
row_text_or_none(const char *utf8, size_t len)
{
	Oid			conversion;
	unsigned char *buf;
	int			encoding = GetDatabaseEncoding();

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return PointerGetDatum(cstring_to_text_with_len(utf8, (int) len));

	conversion = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(conversion))
		return (Datum) 0;
	buf = palloc(len * MAX_CONVERSION_GROWTH + 1);
	if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding,
									  (unsigned char *) unconstify(char *, utf8), (int) len,
									  buf, (int) len * MAX_CONVERSION_GROWTH + 1,
									  true) != (int) len)
		return (Datum) 0;
	return CStringGetTextDatum((char *) buf);
}

Datum
row_json(const char *utf8, size_t len)
{
	const char *text = json_to_server(utf8, &len);

	return PointerGetDatum(cstring_to_text_with_len(text, (int) len));
}

Datum
row_jsonb(const char *utf8, size_t len)
{
	const char *text = json_to_server(utf8, &len);

	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(pnstrdup(text, len)));
}

static void
add_datum(RowCursor *row, Datum value, bool isnull)
{
	row->values[row->n] = value;
	row->nulls[row->n] = isnull;
	row->n++;
}

static void
add_text(RowCursor *row, const char *utf8)
{
	if (utf8 == NULL)
		add_datum(row, (Datum) 0, true);
	else
		add_datum(row, row_text(utf8, strlen(utf8)), false);
}

static void
add_time(RowCursor *row, TimestampTz time)
{
	add_datum(row, TimestampTzGetDatum(time), time == ITEM_NO_TIME);
}

static void
add_bool(RowCursor *row, int value)
{
	add_datum(row, BoolGetDatum(value == 1), value < 0);
}

static void
add_jsonb(RowCursor *row, const char *utf8)
{
	if (utf8 == NULL)
		add_datum(row, (Datum) 0, true);
	else
		add_datum(row, row_jsonb(utf8, strlen(utf8)), false);
}

/* n < 0 is a null array, not an empty one. */
static void
add_texts(RowCursor *row, const char **utf8, int n)
{
	Datum	   *elements;
	ArrayType  *array;

	if (n < 0)
	{
		add_datum(row, (Datum) 0, true);
		return;
	}
	elements = palloc(sizeof(Datum) * Max(n, 1));
	for (int i = 0; i < n; i++)
		elements[i] = row_text(utf8[i], strlen(utf8[i]));
	array = construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT);
	add_datum(row, PointerGetDatum(array), false);
}

static void
add_owner(RowCursor *row, const ItemRef *ref)
{
	add_text(row, ref->type);
	add_text(row, ref->id);
	add_text(row, ref->name);
}

static void
add_identity(RowCursor *row, const ItemRef *ref)
{
	add_text(row, ref->id);
	add_text(row, ref->name);
}

void
row_from_item(const StatusItem *item, Datum *values, bool *nulls)
{
	RowCursor	row = {values, nulls, 0};

	add_text(&row, item->account_activity_item_id);
	add_text(&row, item->access_request_id);
	add_text(&row, item->item_id);
	add_text(&row, item->item_name);
	add_text(&row, item->item_type);
	add_text(&row, item->request_type);
	add_text(&row, item->state);
	add_identity(&row, &item->requester);
	add_identity(&row, &item->requested_for);
	add_text(&row, item->requester_comment);
	add_time(&row, item->created);
	add_time(&row, item->modified);
	add_time(&row, item->start_date);
	add_time(&row, item->remove_date);
	add_bool(&row, item->cancelable);
	add_text(&row, item->cancel_comment);
	add_time(&row, item->cancelled_at);
	add_identity(&row, &item->cancelled_by);
	add_text(&row, item->sod_state);
	add_texts(&row, item->sod_policies, item->nsod_policies);
	add_text(&row, item->description);
	add_text(&row, item->privilege_level);
	add_texts(&row, item->source_names, item->nsource_names);
	add_text(&row, item->error_text);
	add_jsonb(&row, item->client_metadata);
	Assert(row.n == ROW_API_COLUMNS);
}

void
row_from_approval(const ItemApproval *approval, Datum *values, bool *nulls)
{
	RowCursor	row = {values, nulls, 0};

	add_text(&row, approval->approval_id);
	add_text(&row, approval->status);
	add_text(&row, approval->scheme);
	add_bool(&row, approval->forwarded);
	add_owner(&row, &approval->original_owner);
	add_owner(&row, &approval->current_owner);
	add_identity(&row, &approval->reviewed_by);
	add_text(&row, approval->comment);
	add_time(&row, approval->modified);
	add_time(&row, approval->remove_date);
	add_jsonb(&row, approval->timeout_config);
	add_text(&row, approval->error_text);
	Assert(row.n == ROW_APPROVAL_COLUMNS);
}

void
row_from_phase(const ItemPhase *phase, Datum *values, bool *nulls)
{
	RowCursor	row = {values, nulls, 0};

	add_text(&row, phase->name);
	add_text(&row, phase->state);
	add_text(&row, phase->result);
	add_time(&row, phase->started);
	add_time(&row, phase->finished);
	add_text(&row, phase->phase_reference);
	Assert(row.n == ROW_PHASE_COLUMNS);
}

void
row_from_work_item(const ItemWorkItem *work_item, Datum *values, bool *nulls)
{
	RowCursor	row = {values, nulls, 0};

	add_text(&row, work_item->status);
	add_bool(&row, work_item->forwarded);
	add_owner(&row, &work_item->original_owner);
	add_owner(&row, &work_item->current_owner);
	add_time(&row, work_item->modified);
	Assert(row.n == ROW_WORK_ITEM_COLUMNS);
}

bool
row_is_closed_state(const char *state)
{
	static const char *const closed[] = {
		"REQUEST_COMPLETED", "CANCELLED", "TERMINATED", "REJECTED", "PROVISIONING_FAILED",
		"NOT_ALL_ITEMS_PROVISIONED", "ERROR"
	};

	for (int i = 0; state != NULL && i < (int) lengthof(closed); i++)
	{
		if (strcmp(state, closed[i]) == 0)
			return true;
	}
	return false;
}
