/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Triggers that users put on the extension's tables.
 *
 * The tables are written as their owner, mostly a superuser; whoever has been
 * granted TRIGGER on one could so run anything as him.  Who created a trigger
 * is not recorded, so what it would run is looked at.
 *
 * All tables are looked at, whichever the caller is about to write: it costs
 * microseconds a page, and so none can be forgotten.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "guard.h"
#include "writer.h"

/* Could this role become the tables' owner anyway? */
static bool
is_trusted(Oid role, Oid owner)
{
	return role == owner || superuser_arg(role);
}

static Oid
function_owner(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

static Oid
type_owner(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	owner = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The context here and below is the tables' owner. */
static bool
is_foreign_function(Oid function, void *context)
{
	return !is_trusted(function_owner(function), *(Oid *) context);
}

/*
 * Does an expression call a function of somebody we do not trust, or make a
 * value of his type, whose constraints would?  A column's type is its table's
 * owner's choice.
 */
static bool
has_foreign_part(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_foreign_function, context))
		return true;
	if (!IsA(node, List) && !IsA(node, Var) &&
		!is_trusted(type_owner(exprType(node)), *(Oid *) context))
		return true;
	return expression_tree_walker(node, has_foreign_part, context);
}

/*
 * A WHEN condition runs as the owner too, whoever wrote it, and whoever owns the
 * trigger's function.  Immutable, because some of PostgreSQL's own functions
 * that are not run SQL: query_to_xml(), schema_to_xml().
 */
static bool
is_safe_condition(const char *condition, Oid owner)
{
	Node	   *expr = stringToNode(condition);

	return !contain_mutable_functions(expr) && !has_foreign_part(expr, &owner);
}

static void
refuse_trigger(Relation rel, const Trigger *trigger, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for trigger \"%s\" on table \"%s.%s\"",
					trigger->tgname,
					get_namespace_name(RelationGetNamespace(rel)),
					RelationGetRelationName(rel)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * A trigger runs as the tables' owner, but anybody with the TRIGGER privilege
 * can create one.  So its function must belong to somebody who could become
 * the owner anyway.
 */
static void
check_trigger(Relation rel, const Trigger *trigger, Oid owner)
{
	Oid			author;

	if (trigger->tgisinternal || trigger->tgenabled == TRIGGER_DISABLED)
		return;
	author = function_owner(trigger->tgfoid);
	if (!is_trusted(author, owner))
		refuse_trigger(rel, trigger,
					   psprintf("Its function %s belongs to role \"%s\", which is neither the owner of the synced tables nor a superuser.",
								format_procedure_qualified(trigger->tgfoid),
								GetUserNameFromId(author, true)),
					   "Drop or disable the trigger, or give its function to the owner of the table.");
	if (trigger->tginitdeferred)
		refuse_trigger(rel, trigger,
					   "It is deferred: it would run at commit, when the extension is no longer the owner of the synced tables, and in a worker as the bootstrap superuser.",
					   "Create it NOT DEFERRABLE, or INITIALLY IMMEDIATE.");
	if (trigger->tgnargs > 0)
		refuse_trigger(rel, trigger,
					   "It has arguments, which whoever may create a trigger chooses, and of which some functions make SQL that would run as the owner of the synced tables.",
					   "Write the arguments into a function of its own.");
	if (trigger->tgqual != NULL && !is_safe_condition(trigger->tgqual, owner))
		refuse_trigger(rel, trigger,
					   "Its WHEN condition calls a function that is not immutable, or uses a function or type of a role that is neither the owner of the synced tables nor a superuser.",
					   "Drop or disable the trigger, or move the condition into its function.");
}

static void
check_relation_triggers(Oid relid, Oid owner)
{
	/* the lock keeps others from creating one before we are done */
	Relation	rel = table_open(relid, RowExclusiveLock);

	if (rel->trigdesc != NULL)
		for (int i = 0; i < rel->trigdesc->numtriggers; i++)
			check_trigger(rel, &rel->trigdesc->triggers[i], owner);

	/* partitions and children have triggers of their own */
	if (rel->rd_rel->relhassubclass)
	{
		List	   *children = find_inheritance_children(relid, RowExclusiveLock);
		ListCell   *lc;

		foreach(lc, children)
			check_relation_triggers(lfirst_oid(lc), owner);
		list_free(children);
	}
	table_close(rel, NoLock);
}

void
guard_check_triggers(Oid owner)
{
	Oid			schema = writer_schema();

	for (int i = 0; i < NUM_EXTENSION_TABLES; i++)
	{
		Oid			table = get_relname_relid(extension_tables[i], schema);

		/* a newer library than the tables: nobody writes one that is not there */
		if (OidIsValid(table))
			check_relation_triggers(table, owner);
	}
}

void
guard_check_table(const char *table, Oid owner)
{
	check_relation_triggers(writer_table(table), owner);
}

/*
 * In a partition or child too: its triggers keep rows from a statement that
 * names the parent.
 */
static bool
has_before_update(Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	bool		found = rel->trigdesc != NULL && rel->trigdesc->trig_update_before_row;

	if (!found && rel->rd_rel->relhassubclass)
	{
		List	   *children = find_inheritance_children(relid, NoLock);
		ListCell   *lc;

		foreach(lc, children)
			found = found || has_before_update(lfirst_oid(lc));
		list_free(children);
	}
	table_close(rel, NoLock);
	return found;
}

bool
guard_has_before_update(TableId id)
{
	return has_before_update(writer_table(store_tables[id].name));
}
