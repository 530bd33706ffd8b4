/*-------------------------------------------------------------------------
 *
 * merge.c
 *	  Merging a patch into a configuration.
 *
 * It merges jsonb, whose numbers are exact: a key that nobody named must come
 * back as it was.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "jsonbtext.h"
#include "mb/pg_wchar.h"
#include "merge.h"
#include "miscadmin.h"

static bool
is_object(const JsonbValue *value)
{
	return value != NULL && value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data);
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
						tenant->server, jsonbtext_key(&v)),
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

	check_stack_depth();
	check_keys_known(base, patch, tenant);
	appendStringInfoChar(buf, '{');
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			other = findJsonbValueFromContainer(patch, JB_FOBJECT, &v);
			jsonbtext_append_key(buf, &v);
		}
		else if (token == WJB_VALUE && is_object(&v) && is_object(other))
			append_merged(buf, v.val.binary.data, other->val.binary.data, tenant);
		else if (token == WJB_VALUE)
			jsonbtext_append(buf, other != NULL ? other : &v);
	}
	appendStringInfoChar(buf, '}');
}

static void
check_is_object(const Jsonb *base, const Tenant *tenant)
{
	if (!JB_ROOT_IS_OBJECT(base))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the configuration of server \"%s\" is no JSON object",
						tenant->server)));
}

char *
merge_config(Jsonb *base, Jsonb *patch, const Tenant *tenant)
{
	StringInfoData merged;

	check_is_object(base, tenant);
	initStringInfo(&merged);
	append_merged(&merged, &base->root, &patch->root, tenant);
	return pg_server_to_any(merged.data, merged.len, PG_UTF8);
}

static bool
is_in_place(JsonbContainer *base, JsonbContainer *patch)
{
	JsonbIterator *it = JsonbIteratorInit(patch);
	JsonbIteratorToken token;
	JsonbValue	v;
	JsonbValue *known = NULL;

	check_stack_depth();
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY && (known = findJsonbValueFromContainer(base, JB_FOBJECT, &v)) == NULL)
			return false;
		if (token != WJB_VALUE)
			continue;
		if (is_object(&v) && is_object(known))
		{
			if (!is_in_place(known->val.binary.data, v.val.binary.data))
				return false;
		}
		else if (compareJsonbContainers(&JsonbValueToJsonb(known)->root,
										&JsonbValueToJsonb(&v)->root) != 0)
			return false;
	}
	return true;
}

bool
merge_is_in_place(Jsonb *base, Jsonb *patch)
{
	return JB_ROOT_IS_OBJECT(base) && is_in_place(&base->root, &patch->root);
}
