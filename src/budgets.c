/*-------------------------------------------------------------------------
 *
 * budgets.c
 *	  SQL-callable: the request budgets of all databases, and to clear one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <inttypes.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "limiter.h"
#include "miscadmin.h"
#include "session.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(accessreq_request_budgets);
PG_FUNCTION_INFO_V1(accessreq_clear_budget);

#define NAME_DIGITS 16

/* A budget as one row: the columns of request_budgets(), in their order. */
static void
put_budget(FunctionCallInfo fcinfo, const LimiterInfo *info)
{
	Datum		values[13] = {0};
	bool		nulls[13] = {0};

	values[0] = CStringGetTextDatum(psprintf("%016" PRIx64, info->name));
	values[1] = CStringGetTextDatum(info->of_token ? "token" : "calls");
	values[2] = BoolGetDatum(info->shared);
	values[3] = ObjectIdGetDatum(info->database);
	values[4] = ObjectIdGetDatum(info->serverid);
	values[5] = ObjectIdGetDatum(info->userid);
	values[6] = CStringGetTextDatum(info->endpoint);
	nulls[7] = info->of_token;
	if (!nulls[7])
		values[7] = CStringGetTextDatum(tenant_api_names[info->api]);
	nulls[8] = nulls[9] = info->client_id[0] == '\0';
	if (!nulls[8])
	{
		values[8] = CStringGetTextDatum(info->client_id);
		values[9] = CStringGetTextDatum(info->token_endpoint);
	}
	nulls[10] = info->limit == 0;
	values[10] = Int32GetDatum(info->limit);
	nulls[11] = info->of_token;
	values[11] = Int32GetDatum(info->used);
	values[12] = Float8GetDatum((double) info->blocked_us / USECS_PER_SEC);
	session_put_row(fcinfo, values, nulls);
}

/*
 * request_budgets(): a row for each budget that is counted, of all databases;
 * without preload those of this process.  The view request_budget adds names.
 */
Datum
accessreq_request_budgets(PG_FUNCTION_ARGS)
{
	static const Oid columns[] = {
		TEXTOID, TEXTOID, BOOLOID, OIDOID, OIDOID, OIDOID, TEXTOID,
		TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID, FLOAT8OID
	};
	LimiterInfo *list;
	int			n;

	session_begin_rows(fcinfo, columns, lengthof(columns));
	list = limiter_list(&n);
	for (int i = 0; i < n; i++)
		put_budget(fcinfo, &list[i]);
	return (Datum) 0;
}

/*
 * clear_budget(budget text): forget what a budget counted, its block and its
 * smallest limit; false where there is none of that name.  Raises 22004 for
 * null, 22023 for what is no name of a budget.
 */
Datum
accessreq_clear_budget(PG_FUNCTION_ARGS)
{
	char	   *name;

	session_require_arg(fcinfo, 0, "budget");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (strlen(name) != NAME_DIGITS || strspn(name, "0123456789abcdef") != NAME_DIGITS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not the name of a request budget", name),
				 errhint("Take it from the column \"budget\" of accessreq.request_budget.")));
	PG_RETURN_BOOL(limiter_clear(strtou64(name, NULL, 16)));
}
