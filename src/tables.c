/*-------------------------------------------------------------------------
 *
 * tables.c
 *	  The synced tables' columns, written down once.
 *
 * In the order in which row.h makes Datums of them, so that whoever adds a
 * column adds it there and here, and the compiler compares the numbers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "tables.h"

static const StoreColumn status_columns[] = {
	{KEY_SERVER, TEXTOID},
	{KEY_ID, TEXTOID},
	{"access_request_id", TEXTOID},
	{"item_id", TEXTOID},
	{"item_name", TEXTOID},
	{"item_type", TEXTOID},
	{"request_type", TEXTOID},
	{"state", TEXTOID},
	{"requester_id", TEXTOID},
	{"requester_name", TEXTOID},
	{"requested_for_id", TEXTOID},
	{"requested_for_name", TEXTOID},
	{"requester_comment", TEXTOID},
	{"created", TIMESTAMPTZOID},
	{"modified", TIMESTAMPTZOID},
	{"start_date", TIMESTAMPTZOID},
	{"remove_date", TIMESTAMPTZOID},
	{"cancelable", BOOLOID},
	{"cancel_comment", TEXTOID},
	{"cancelled_at", TIMESTAMPTZOID},
	{"cancelled_by_id", TEXTOID},
	{"cancelled_by_name", TEXTOID},
	{"sod_state", TEXTOID},
	{"sod_policies", TEXTARRAYOID},
	{"description", TEXTOID},
	{"privilege_level", TEXTOID},
	{"source_names", TEXTARRAYOID},
	{"error_text", TEXTOID},
	{"client_metadata", JSONBOID},
	{"raw", JSONOID},
	{"content_hash", INT8OID},
};

static const StoreColumn approval_columns[] = {
	{KEY_SERVER, TEXTOID},
	{KEY_ID, TEXTOID},
	{"ordinal", INT4OID},
	{"approval_id", TEXTOID},
	{"status", TEXTOID},
	{"scheme", TEXTOID},
	{"forwarded", BOOLOID},
	{"original_owner_type", TEXTOID},
	{"original_owner_id", TEXTOID},
	{"original_owner_name", TEXTOID},
	{"current_owner_type", TEXTOID},
	{"current_owner_id", TEXTOID},
	{"current_owner_name", TEXTOID},
	{"reviewed_by_id", TEXTOID},
	{"reviewed_by_name", TEXTOID},
	{"comment", TEXTOID},
	{"modified", TIMESTAMPTZOID},
	{"remove_date", TIMESTAMPTZOID},
	{"timeout_config", JSONBOID},
	{"error_text", TEXTOID},
};

static const StoreColumn phase_columns[] = {
	{KEY_SERVER, TEXTOID},
	{KEY_ID, TEXTOID},
	{"ordinal", INT4OID},
	{"name", TEXTOID},
	{"state", TEXTOID},
	{"result", TEXTOID},
	{"started", TIMESTAMPTZOID},
	{"finished", TIMESTAMPTZOID},
	{"phase_reference", TEXTOID},
};

static const StoreColumn work_item_columns[] = {
	{KEY_SERVER, TEXTOID},
	{KEY_ID, TEXTOID},
	{"ordinal", INT4OID},
	{"status", TEXTOID},
	{"forwarded", BOOLOID},
	{"original_owner_type", TEXTOID},
	{"original_owner_id", TEXTOID},
	{"original_owner_name", TEXTOID},
	{"current_owner_type", TEXTOID},
	{"current_owner_id", TEXTOID},
	{"current_owner_name", TEXTOID},
	{"modified", TIMESTAMPTZOID},
};

const StoreTable store_tables[NUM_TABLES] = {
	[TABLE_STATUS] = {"request_status", status_columns, lengthof(status_columns), 2},
	[TABLE_APPROVAL] = {"approval", approval_columns, lengthof(approval_columns), 3},
	[TABLE_PHASE] = {"phase", phase_columns, lengthof(phase_columns), 3},
	[TABLE_WORK_ITEM] = {"manual_work_item", work_item_columns,
	lengthof(work_item_columns), 3},
};

StaticAssertDecl(lengthof(status_columns) == MAX_COLUMNS,
				 "request_status: row.h and tables.c differ");
StaticAssertDecl(lengthof(approval_columns) == CHILD_FIRST + ROW_APPROVAL_COLUMNS,
				 "approval: row.h and tables.c differ");
StaticAssertDecl(lengthof(phase_columns) == CHILD_FIRST + ROW_PHASE_COLUMNS,
				 "phase: row.h and tables.c differ");
StaticAssertDecl(lengthof(work_item_columns) == CHILD_FIRST + ROW_WORK_ITEM_COLUMNS,
				 "manual_work_item: row.h and tables.c differ");

const char *const extension_tables[NUM_EXTENSION_TABLES] = {
	"request_status", "approval", "phase", "manual_work_item",
	"state_change", "approval_change", "quarantined_item", "missing_candidate",
	"sync_job", "sync_run", "action"
};
