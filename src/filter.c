/*-------------------------------------------------------------------------
 *
 * filter.c
 *	  The tenant's filter language: texts of conditions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "filter.h"
#include "item.h"
#include "utils/timestamp.h"

#define REQUEST_ID_KEY "accessRequestId"

/* A string literal: double quotes, with quotes and backslashes escaped. */
static void
append_literal(StringInfo buf, const char *text)
{
	appendStringInfoChar(buf, '"');
	for (; *text; text++)
	{
		if (*text == '"' || *text == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, *text);
	}
	appendStringInfoChar(buf, '"');
}

static void
append_list(StringInfo buf, const char *key, const char *const *ids, int nids)
{
	appendStringInfo(buf, "%s in (", key);
	for (int i = 0; i < nids; i++)
	{
		if (i > 0)
			appendStringInfoString(buf, ", ");
		append_literal(buf, ids[i]);
	}
	appendStringInfoChar(buf, ')');
}

char *
filter_after(const char *filter, const char *id)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (filter != NULL && filter[0] != '\0')
		appendStringInfoString(&buf, filter);
	if (id != NULL)
	{
		appendStringInfo(&buf, "%s" ITEM_ID_KEY " gt ", buf.len > 0 ? " and " : "");
		append_literal(&buf, id);
	}
	return buf.data;
}

char *
filter_requests(const char *const *ids, int nids)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (nids == 1)
	{
		/* not every api knows "in" for this key */
		appendStringInfoString(&buf, REQUEST_ID_KEY " eq ");
		append_literal(&buf, ids[0]);
	}
	else
		append_list(&buf, REQUEST_ID_KEY, ids, nids);
	return buf.data;
}

char *
filter_items(const char *const *ids, int nids)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_list(&buf, ITEM_ID_KEY, ids, nids);
	return buf.data;
}

TimestampTz
filter_floor(TimestampTz t)
{
	TimestampTz rest = t % FILTER_UNIT_US;

	return TIMESTAMP_NOT_FINITE(t) ? t : t - (rest < 0 ? rest + FILTER_UNIT_US : rest);
}

void
filter_append_time(StringInfo buf, TimestampTz t, int digits)
{
	struct pg_tm tm;
	fsec_t		fsec;

	/* what a tenant sent has been read into this range */
	if (timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a date is outside the range that the tenant knows")));
	appendStringInfo(buf, "%04d-%02d-%02dT%02d:%02d:%02d.%0*dZ",
					 tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
					 digits, digits == 3 ? fsec / 1000 : fsec);
}

/* In the order of DateForm. */
static const char *const form_names[] = {NULL, "neither", "quoted", "bare"};

/* Before any row. */
#define FIRST_DATE "1970-01-01T00:00:00.000Z"

const char *
filter_form_name(DateForm form)
{
	return form_names[form];
}

DateForm
filter_form(const char *name)
{
	for (int i = DATES_NEITHER; name != NULL && i <= DATES_BARE; i++)
	{
		if (strcmp(name, form_names[i]) == 0)
			return (DateForm) i;
	}
	return DATES_UNKNOWN;
}

bool
filter_takes_dates(DateForm form)
{
	return form == DATES_QUOTED || form == DATES_BARE;
}

const char *
filter_dated(DateForm form)
{
	if (!filter_takes_dates(form))
		return NULL;
	return form == DATES_QUOTED ? "created ge \"" FIRST_DATE "\"" : "created ge " FIRST_DATE;
}

static void
append_created(StringInfo buf, DateForm form, const char *operator, TimestampTz t)
{
	const char *quote = form == DATES_QUOTED ? "\"" : "";

	if (t == DT_NOBEGIN || !filter_takes_dates(form))
		return;
	appendStringInfo(buf, "%screated %s %s", buf->len > 0 ? " and " : "", operator, quote);
	filter_append_time(buf, filter_floor(t), 3);
	appendStringInfoString(buf, quote);
}

char *
filter_created(DateForm form, TimestampTz from, TimestampTz to)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_created(&buf, form, "ge", from);
	append_created(&buf, form, "lt", to);
	return buf.len > 0 ? buf.data : NULL;
}
