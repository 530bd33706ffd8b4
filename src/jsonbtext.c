/*-------------------------------------------------------------------------
 *
 * jsonbtext.c
 *	  Parts of a jsonb as JSON text, exactly, for building another from them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "jsonbtext.h"
#include "utils/json.h"

char *
jsonbtext_key(const JsonbValue *key)
{
	return pnstrdup(key->val.string.val, key->val.string.len);
}

void
jsonbtext_append(StringInfo buf, JsonbValue *value)
{
	Jsonb	   *jsonb = JsonbValueToJsonb(value);

	(void) JsonbToCString(buf, &jsonb->root, VARSIZE(jsonb));
}

void
jsonbtext_append_key(StringInfo buf, const JsonbValue *key)
{
	if (buf->data[buf->len - 1] != '{')
		appendStringInfoChar(buf, ',');
	escape_json(buf, jsonbtext_key(key));
	appendStringInfoChar(buf, ':');
}
