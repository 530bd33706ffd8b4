/*-------------------------------------------------------------------------
 *
 * utility.c
 *	  The hook into utility commands.
 *
 * DROP DATABASE, and whatever else wants a database for itself, fails while
 * anybody is connected to it, and does not tell background workers to go.  So
 * ours is asked to before the command begins, and may return when it has ended,
 * well or not.
 *
 * Commands on the extension, and settings of a database, are told to the worker
 * or the launcher, who would see them at their next look only.  ALTER EXTENSION
 * has to wait for who is about to write its tables, as DROP EXTENSION does by
 * itself, and they for it: who has looked at its version must be able to go by
 * that to the end of his transaction.
 *
 * A user mapping for PUBLIC draws a warning here, because the wrapper's validator
 * is not told whose the mapping is; and whoever drops a server whose rows stay is
 * told so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "commands/defrem.h"
#include "compat.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "job.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "tenant.h"
#include "utility.h"
#include "utils/lsyscache.h"
#include "version.h"
#include "workers.h"
#include "writer.h"

static ProcessUtility_hook_type previous_hook = NULL;

static const DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		const DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/* The database that a command wants for itself, or NULL. */
static const char *
wanted_database(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) statement)->subname;
			return NULL;
		case T_AlterDatabaseStmt:
			if (find_option(((AlterDatabaseStmt *) statement)->options, "tablespace"))
				return ((AlterDatabaseStmt *) statement)->dbname;
			return NULL;
		case T_CreatedbStmt:
			{
				const DefElem *template = find_option(((CreatedbStmt *) statement)->options,
													  "template");

				return template && template->arg ? defGetString((DefElem *) template) : NULL;
			}
		default:
			return NULL;
	}
}

/*
 * Whose command will be refused in a moment has no business with our worker.
 * (Who does not own a database can copy it only where it is a template, and
 * those have no worker.)
 */
static Oid
database_to_leave(Node *statement)
{
	const char *name = wanted_database(statement);
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;

	if (!OidIsValid(database) || compat_owns_database(database, GetUserId()))
		return database;
	return InvalidOid;
}

/* This database, if it has the extension. */
static Oid
here_if_extended(void)
{
	return OidIsValid(get_extension_oid("accessreq", true)) ? MyDatabaseId : InvalidOid;
}

/* The database whose worker should look around after a command, or InvalidOid. */
static Oid
concerned_database(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_CreateExtensionStmt:
			return strcmp(((CreateExtensionStmt *) statement)->extname, "accessreq") == 0 ?
				MyDatabaseId : InvalidOid;
		case T_AlterExtensionStmt:
			return strcmp(((AlterExtensionStmt *) statement)->extname, "accessreq") == 0 ?
				MyDatabaseId : InvalidOid;
		case T_DropStmt:
			if (((DropStmt *) statement)->removeType == OBJECT_FOREIGN_SERVER)
				return here_if_extended();
			return ((DropStmt *) statement)->removeType == OBJECT_EXTENSION ?
				MyDatabaseId : InvalidOid;
			/* whose actions end; a worker elsewhere sees it when it looks around */
		case T_DropRoleStmt:
			return here_if_extended();
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_ROLE ||
				((RenameStmt *) statement)->renameType == OBJECT_FOREIGN_SERVER)
				return here_if_extended();
			return InvalidOid;
		case T_AlterDatabaseSetStmt:
			return get_database_oid(((AlterDatabaseSetStmt *) statement)->dbname, true);
		default:
			return InvalidOid;
	}
}

/* Whose command will be refused in a moment has nobody wait for it. */
static void
lock_altered_extension(Node *statement)
{
	Oid			extension;

	if (nodeTag(statement) != T_AlterExtensionStmt || RecoveryInProgress() ||
		strcmp(((AlterExtensionStmt *) statement)->extname, "accessreq") != 0)
		return;
	extension = get_extension_oid("accessreq", true);
	if (OidIsValid(extension) && compat_owns_extension(extension, GetUserId()))
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessExclusiveLock);
}

/* The server of ours on which a command makes a mapping for PUBLIC; palloc'd, or NULL. */
static char *
server_open_to_all(Node *statement)
{
	const CreateUserMappingStmt *mapping = (const CreateUserMappingStmt *) statement;

	if (nodeTag(statement) != T_CreateUserMappingStmt ||
		mapping->user->roletype != ROLESPEC_PUBLIC || !tenant_is_server(mapping->servername))
		return NULL;
	return pstrdup(mapping->servername);
}

static void
warn_of_public_mapping(const char *server)
{
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("every role with USAGE on server \"%s\" acts with this user mapping for PUBLIC",
					server),
			 errhint(TENANT_PUBLIC_MAPPING_HINT)));
}

/*
 * The servers of ours that are there and have a job that is enabled: a List of their
 * names, in the current context.
 */
static List *
pulled_servers(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			table = get_relname_relid("sync_job", writer_schema());
	List	   *servers = NIL;
	ListCell   *cell;
	List	   *there = NIL;

	/* no command waits for it */
	if (!OidIsValid(table) || !ConditionalLockRelationOid(table, AccessShareLock))
		return NIL;
	SPI_connect();
	MemoryContextSwitchTo(cxt);
	servers = job_enabled_servers();
	SPI_finish();
	foreach(cell, servers)
	{
		if (tenant_is_server(lfirst(cell)))
			there = lappend(there, lfirst(cell));
	}
	return there;
}

static bool
may_drop_servers(Node *statement)
{
	if (nodeTag(statement) == T_DropOwnedStmt)
		return true;
	if (nodeTag(statement) != T_DropStmt)
		return false;
	return ((DropStmt *) statement)->removeType == OBJECT_FOREIGN_SERVER ||
		((DropStmt *) statement)->removeType == OBJECT_FDW;
}

/*
 * The servers that a command may drop, by themselves or with what they are of.  No
 * command fails for tables that are not this library's.
 */
static List *
servers_at_stake(Node *statement)
{
	Oid			extension;

	if (!may_drop_servers(statement))
		return NIL;
	extension = get_extension_oid("accessreq", true);
	if (!OidIsValid(extension) || !version_is_ours(extension))
		return NIL;
	return pulled_servers();
}

static void
tell_what_stays(List *servers)
{
	ListCell   *cell;

	foreach(cell, servers)
	{
		const char *server = lfirst(cell);

		if (OidIsValid(get_foreign_server_oid(server, true)))
			continue;
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("the job of server \"%s\" is still enabled, and its rows stay", server),
				 errhint("SELECT accessreq.stop_sync('%s'), then accessreq.forget('%s') to delete them, or accessreq.rename_server() to give them to another server.", server, server)));
	}
}

static void
run_command(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc)
{
	if (previous_hook)
		previous_hook(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								environment, dest, qc);
}

/* The same without our worker in the database. */
static void
run_without_worker(Oid database, PlannedStmt *pstmt, const char *query, bool read_only_tree,
				   ProcessUtilityContext context, ParamListInfo params,
				   QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc)
{
	PG_TRY();
	{
		workers_send_away(database);
		run_command(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	}
	PG_CATCH();
	{
		workers_let_return(database);
		PG_RE_THROW();
	}
	PG_END_TRY();
	workers_let_return(database);
}

static void
on_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
		   ProcessUtilityContext context, ParamListInfo params,
		   QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc)
{
	/* the command may free its own tree */
	Oid			concerned = concerned_database(pstmt->utilityStmt);
	Oid			database = database_to_leave(pstmt->utilityStmt);
	char	   *public_server = server_open_to_all(pstmt->utilityStmt);
	List	   *at_stake = servers_at_stake(pstmt->utilityStmt);

	lock_altered_extension(pstmt->utilityStmt);
	if (OidIsValid(database))
		run_without_worker(database, pstmt, query, read_only_tree, context, params,
						   environment, dest, qc);
	else
		run_command(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	if (OidIsValid(concerned))
		workers_wake_at_commit(concerned);
	if (public_server)
		warn_of_public_mapping(public_server);
	tell_what_stays(at_stake);
}

void
utility_install_hook(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}
