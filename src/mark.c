/*-------------------------------------------------------------------------
 *
 * mark.c
 *	  The token by which a create is found again.
 *
 * The tenant gives the clientMetadata of an item back in its status, and has no
 * other way to recognise one's own request.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "jsonbtext.h"
#include "mark.h"
#include "utils/fmgrprotos.h"

static bool
is_key(const JsonbValue *key, const char *name)
{
	return key->val.string.len == (int) strlen(name) &&
		memcmp(key->val.string.val, name, strlen(name)) == 0;
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

/* The members of an object, but for the one that is named; that one. */
static JsonbValue
append_members(StringInfo buf, JsonbContainer *object, const char *without)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	v,
				left = {.type = jbvNull};
	bool		skip = false;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			skip = without != NULL && is_key(&v, without);
		if (token == WJB_KEY && !skip)
			jsonbtext_append_key(buf, &v);
		else if (token == WJB_VALUE && skip)
			left = v;
		else if (token == WJB_VALUE)
			jsonbtext_append(buf, &v);
	}
	return left;
}

static void
append_item(StringInfo buf, JsonbContainer *item, const char *mark)
{
	JsonbValue	metadata;

	appendStringInfoChar(buf, '{');
	metadata = append_members(buf, item, "clientMetadata");
	appendStringInfo(buf, "%s\"clientMetadata\":{", buf->data[buf->len - 1] == '{' ? "" : ",");
	if (metadata.type == jbvBinary && JsonContainerIsObject(metadata.val.binary.data))
		(void) append_members(buf, metadata.val.binary.data, MARK_KEY);
	appendStringInfo(buf, "%s\"" MARK_KEY "\":\"%s\"}}",
					 buf->data[buf->len - 1] == '{' ? "" : ",", mark);
}

static void append_request(StringInfo buf, JsonbContainer *request, const char *mark);

/* Items, or people with items of their own. */
static void
append_list(StringInfo buf, JsonbContainer *list, bool items, const char *mark)
{
	JsonbIterator *it = JsonbIteratorInit(list);
	JsonbIteratorToken token;
	JsonbValue	v;

	appendStringInfoChar(buf, '[');
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (buf->data[buf->len - 1] != '[')
			appendStringInfoChar(buf, ',');
		if (v.type != jbvBinary || !JsonContainerIsObject(v.val.binary.data))
			jsonbtext_append(buf, &v);
		else if (items)
			append_item(buf, v.val.binary.data, mark);
		else
			append_request(buf, v.val.binary.data, mark);
	}
	appendStringInfoChar(buf, ']');
}

static void
append_request(StringInfo buf, JsonbContainer *request, const char *mark)
{
	JsonbIterator *it = JsonbIteratorInit(request);
	JsonbIteratorToken token;
	JsonbValue	v;
	bool		items = false,
				people = false;

	appendStringInfoChar(buf, '{');
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			items = is_key(&v, "requestedItems");
			people = is_key(&v, "requestedForWithRequestedItems");
			jsonbtext_append_key(buf, &v);
		}
		else if (token == WJB_VALUE && (items || people) && is_array(&v))
			append_list(buf, v.val.binary.data, items, mark);
		else if (token == WJB_VALUE)
			jsonbtext_append(buf, &v);
	}
	appendStringInfoChar(buf, '}');
}

Datum
mark_items(Jsonb *request, const char *token)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_request(&buf, &request->root, token);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data));
}
