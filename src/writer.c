/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  Running statements as the owner of the synced tables.
 *
 * Here, and nowhere else, the extension takes an identity that the session
 * does not have.  It is the identity of the tables' owner, never of the
 * bootstrap superuser, and it comes with the fences that VACUUM or REFRESH
 * MATERIALIZED VIEW put up: no change of role, no temporary objects, a
 * search_path in which nobody else can create anything.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "writer.h"

#define WRITER_SCHEMA "accessreq"
#define WRITER_SEARCH_PATH "pg_catalog, pg_temp"

/* The table whose owner counts as the owner of all. */
#define WRITER_OWNER_TABLE "request_status"

/*
 * The control file fixes the schema's name, so that name is all we need: a
 * syscache lookup, where looking for the extension would be a scan of
 * pg_extension for each page.
 */
Oid
writer_schema(void)
{
	Oid			schema = get_namespace_oid(WRITER_SCHEMA, true);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database",
						"accessreq"),
				 errhint("Run CREATE EXTENSION accessreq.")));
	return schema;
}

Oid
writer_table(const char *name)
{
	Oid			table = get_relname_relid(name, writer_schema());

	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist", WRITER_SCHEMA, name)));
	return table;
}

/* Owner of the synced tables. */
static Oid
writer_owner(void)
{
	Oid			table = writer_table(WRITER_OWNER_TABLE);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))	/* dropped since the line before */
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist", WRITER_SCHEMA,
						WRITER_OWNER_TABLE)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
writer_enter(WriterState *state)
{
	Oid			owner = writer_owner();

	GetUserIdAndSecContext(&state->userid, &state->sec_context);
	SetUserIdAndSecContext(owner,
						   state->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	state->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", WRITER_SEARCH_PATH,
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
writer_leave(const WriterState *state)
{
	AtEOXact_GUC(false, state->guc_level);
	SetUserIdAndSecContext(state->userid, state->sec_context);
}
