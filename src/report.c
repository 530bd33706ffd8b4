/*-------------------------------------------------------------------------
 *
 * report.c
 *	  SQL-callable: what the report views and the functions for automation need
 *	  of C.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "foreign/foreign.h"
#include "item.h"
#include "miscadmin.h"
#include "tenant.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(accessreq_parse_time);
PG_FUNCTION_INFO_V1(accessreq_resolve_server);

/* parse_time(text): a date as the API writes them; null where it is none. */
Datum
accessreq_parse_time(PG_FUNCTION_ARGS)
{
	TimestampTz t = item_parse_time(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (t == ITEM_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(t);
}

/*
 * resolve_server(server name): the server that an argument means; raises what
 * every function with such an argument does, USAGE included.
 */
Datum
accessreq_resolve_server(PG_FUNCTION_ARGS)
{
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	Oid			serverid = tenant_resolve(name, GetUserId());
	Name		result = palloc0(sizeof(NameData));

	tenant_check_usage(serverid, GetUserId());
	namestrcpy(result, GetForeignServer(serverid)->servername);
	PG_RETURN_NAME(result);
}
