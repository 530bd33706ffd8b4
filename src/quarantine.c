/*-------------------------------------------------------------------------
 *
 * quarantine.c
 *	  Items that cannot be stored: whose fault an error is, and the rows of
 *	  quarantined_item.
 *
 * One bad item must never stop a pull; but neither may a deadlock or a full
 * disk make items look bad.  So an error's class decides.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "quarantine.h"
#include "statement.h"
#include "writer.h"

/* Longest error text that is kept of an item in quarantine, in bytes. */
#define MAX_ERROR_LENGTH 2000

/* 54000 is an index entry too large for its page: an absurdly long value. */
bool
quarantine_is_items_fault(const Store *store, const ErrorData *error)
{
	int			sqlstate = error->sqlerrcode;

	/* in an old snapshot we may not see what we collide with */
	if (sqlstate == ERRCODE_UNIQUE_VIOLATION && IsolationUsesXactSnapshot())
		return false;
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION):
		case ERRCODE_TO_CATEGORY(ERRCODE_PLPGSQL_ERROR):
			return true;
		case ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION):
			return store->in_trigger;
		default:
			return sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	}
}

/* A message that quarantined_item takes, whatever it holds. */
static char *
storable_message(const char *message)
{
	char	   *copy;
	int			len;

	if (message == NULL)
		return pstrdup("no message");
	len = strlen(message);
	copy = pnstrdup(message, pg_mbcliplen(message, len, MAX_ERROR_LENGTH));
	if (!pg_verifymbstr(copy, strlen(copy), true))
		for (char *c = copy; *c != '\0'; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	return copy;
}

void
quarantine_condemn(StoreItem *item, const ErrorData *error)
{
	page_condemn(item, pstrdup(unpack_sql_state(error->sqlerrcode)),
				 storable_message(error->message));
}

static void
write_item(Store *store, const StoreItem *item)
{
	Oid			types[] = {
		TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, BYTEAOID
	};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types) + 1] = "        ";

	values[0] = store->server;
	values[1] = page_has_id(item) ? item->id : CStringGetTextDatum("");
	values[2] = Int64GetDatum(item->hash);
	values[3] = Int64GetDatum(store->page->run_id);
	if (store->page->run_id == 0)
		nulls[3] = 'n';
	values[4] = TimestampTzGetDatum(store->page->sent_at);
	values[5] = CStringGetTextDatum(item->sqlstate);
	values[6] = CStringGetTextDatum(item->error);
	values[7] = PointerGetDatum(cstring_to_text_with_len(item->span->start,
														 (int) item->span->len));
	statement_check(SPI_execute_with_args("INSERT INTO accessreq.quarantined_item AS q"
										  " (server, account_activity_item_id, item_hash, run_id,"
										  " first_seen_at, last_seen_at, error_code, error, item)"
										  " VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8)"
										  " ON CONFLICT (server, account_activity_item_id, item_hash)"
										  " DO UPDATE SET run_id = excluded.run_id,"
										  " last_seen_at = greatest(q.last_seen_at, excluded.last_seen_at),"
										  " attempts = q.attempts + 1,"
										  " error_code = excluded.error_code,"
										  " error = excluded.error",
										  lengthof(types), types, values, nulls, false, 0));
}

void
quarantine_write(Store *store)
{
	if (store->has_quarantine)
		statement_for_ids(store,
						  "DELETE FROM accessreq.quarantined_item"
						  " WHERE server = $1 AND account_activity_item_id = ANY ($2)",
						  page_is_stored);
	for (int i = 0; i < store->nitems; i++)
		if (store->items[i].fate == FATE_BAD)
			write_item(store, &store->items[i]);
}

void
quarantine_sweep(const char *server, TimestampTz since)
{
	Oid			types[] = {TEXTOID, TIMESTAMPTZOID};
	Datum		values[] = {CStringGetTextDatum(server), TimestampTzGetDatum(since)};
	WriterState writer;

	writer_enter(&writer);
	statement_check(SPI_execute_with_args("DELETE FROM accessreq.quarantined_item"
										  " WHERE server = $1 AND account_activity_item_id = ''"
										  " AND last_seen_at < $2",
										  lengthof(types), types, values, NULL, false, 0));
	writer_leave(&writer);
}
