/*-------------------------------------------------------------------------
 *
 * config.c
 *	  SQL-callable: the tenant's access request configuration.
 *
 * The API only replaces the whole; merge_config() reads it, merges and puts it
 * back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "answer.h"
#include "api.h"
#include "merge.h"
#include "miscadmin.h"
#include "session.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(accessreq_get_config);
PG_FUNCTION_INFO_V1(accessreq_set_config);
PG_FUNCTION_INFO_V1(accessreq_merge_config);

static Datum
fetch_config(Session *session)
{
	CallSpec	spec;

	api_get_config(&spec, session->tenant);
	return answer_config(call_run_or_raise(session->calls, &spec), session->tenant);
}

static Datum
put_config(Session *session, const char *function, const char *body)
{
	CallSpec	spec;
	Call	   *call;

	api_put_config(&spec, session->tenant, body);
	call = session_write(session, function, NULL, 0, &spec);
	if (call_error(call) != NULL)
		api_error_raise(call_error(call));
	return answer_jsonb(call);
}

/* get_config(server name) */
Datum
accessreq_get_config(PG_FUNCTION_ARGS)
{
	Session    *session = session_open(fcinfo, 0, CurTransactionContext);
	Datum		config = fetch_config(session);

	session_close(session);
	return config;
}

/* set_config(config jsonb, server name): replaces all */
Datum
accessreq_set_config(PG_FUNCTION_ARGS)
{
	Session    *session;
	Datum		answer;

	(void) session_object_arg(fcinfo, 0, "config");
	session = session_open(fcinfo, 1, CurTransactionContext);
	answer = put_config(session, "set_config", session_jsonb_arg(fcinfo, 0));
	session_close(session);
	return answer;
}

/* merge_config(patch jsonb, server name) */
Datum
accessreq_merge_config(PG_FUNCTION_ARGS)
{
	Jsonb	   *patch = session_object_arg(fcinfo, 0, "patch");
	Session    *session = session_open(fcinfo, 1, CurTransactionContext);
	Jsonb	   *base;
	Datum		answer;

	/* before it is read for nothing */
	call_check_may_change(session->tenant, "replace the access request configuration");
	base = DatumGetJsonbP(fetch_config(session));
	answer = put_config(session, "merge_config", merge_config(base, patch, session->tenant));
	session_close(session);
	return answer;
}
