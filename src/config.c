/*-------------------------------------------------------------------------
 *
 * config.c
 *	  SQL-callable: the tenant's access request configuration.
 *
 * The API only replaces the whole; merge_config() reads it, merges and puts it
 * back.  It merges jsonb, whose numbers are exact: a key that nobody named must
 * come back as it was.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "api.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "session.h"
#include "utils/builtins.h"
#include "utils/json.h"
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
	return session_answer(&spec, call_run_or_raise(session->calls, &spec), false);
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
	return session_answer(&spec, call, true);
}

/* Argument 0, which has to be an object. */
static Jsonb *
config_arg(FunctionCallInfo fcinfo, const char *name)
{
	Jsonb	   *value;

	session_require_arg(fcinfo, 0, name);
	value = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is not a JSON object", name)));
	return value;
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

	(void) config_arg(fcinfo, "config");
	session = session_open(fcinfo, 1, CurTransactionContext);
	answer = put_config(session, "set_config", session_jsonb_arg(fcinfo, 0));
	session_close(session);
	return answer;
}

/* --------------------------------------------------------------------- merging */

static char *
key_text(const JsonbValue *key)
{
	return pnstrdup(key->val.string.val, key->val.string.len);
}

static bool
is_object(const JsonbValue *value)
{
	return value != NULL && value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data);
}

static void
append_value(StringInfo buf, JsonbValue *value)
{
	Jsonb	   *jsonb = JsonbValueToJsonb(value);

	appendStringInfoString(buf, JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
}

/* A key that is nowhere in the configuration belongs to another api. */
static void
check_keys_known(JsonbContainer *base, JsonbContainer *patch, const Tenant *tenant)
{
	JsonbIterator *it = JsonbIteratorInit(patch);
	JsonbIteratorToken token;
	JsonbValue	v;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token != WJB_KEY || findJsonbValueFromContainer(base, JB_FOBJECT, &v) != NULL)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the configuration of server \"%s\" has no key \"%s\"",
						tenant->server, key_text(&v)),
				 errdetail("It may belong to another API version than \"%s\".",
						   tenant_api_names[tenant->api]),
				 errhint("SELECT accessreq.get_config() shows the keys that there are.")));
	}
}

/* Objects merge, everything else replaces, nothing is removed. */
static void
append_merged(StringInfo buf, JsonbContainer *base, JsonbContainer *patch, const Tenant *tenant)
{
	JsonbIterator *it = JsonbIteratorInit(base);
	JsonbIteratorToken token;
	JsonbValue	v;
	JsonbValue *other = NULL;
	const char *separator = "";

	check_stack_depth();
	check_keys_known(base, patch, tenant);
	appendStringInfoChar(buf, '{');
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			other = findJsonbValueFromContainer(patch, JB_FOBJECT, &v);
			appendStringInfoString(buf, separator);
			separator = ",";
			escape_json(buf, key_text(&v));
			appendStringInfoChar(buf, ':');
		}
		else if (token == WJB_VALUE && is_object(&v) && is_object(other))
			append_merged(buf, v.val.binary.data, other->val.binary.data, tenant);
		else if (token == WJB_VALUE)
			append_value(buf, other != NULL ? other : &v);
	}
	appendStringInfoChar(buf, '}');
}

/* merge_config(patch jsonb, server name) */
Datum
accessreq_merge_config(PG_FUNCTION_ARGS)
{
	Jsonb	   *patch = config_arg(fcinfo, "patch");
	Session    *session = session_open(fcinfo, 1, CurTransactionContext);
	Jsonb	   *base = DatumGetJsonbP(fetch_config(session));
	StringInfoData merged;
	Datum		answer;

	if (!JB_ROOT_IS_OBJECT(base))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the configuration of server \"%s\" is no JSON object",
						session->tenant->server)));
	initStringInfo(&merged);
	append_merged(&merged, &base->root, &patch->root, session->tenant);
	answer = put_config(session, "merge_config", session_utf8(merged.data));
	session_close(session);
	return answer;
}
