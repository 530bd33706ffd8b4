/*-------------------------------------------------------------------------
 *
 * rowset.h
 *	  The rows that an attempt to store a page writes, in tuplestores that
 *	  statements read by a name.  Internal to store.c and its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_ROWSET_H
#define ACCESSREQ_ROWSET_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#include "page.h"
#include "tables.h"

/* Rows that a statement reads by a name. */
typedef struct RowSet
{
	TupleDesc	tupdesc;
	Tuplestorestate *rows;		/* NULL while there is none */
	int64		n;
} RowSet;

/* What one attempt writes. */
typedef struct Rows
{
	MemoryContext cxt;			/* SPI's: it reads them there */
	RowSet		added[NUM_TABLES];	/* to insert */
	RowSet		changed[NUM_TABLES];	/* to update, children to upsert */
	RowSet		sizes;			/* of items whose children are upserted */
} Rows;

/*
 * Make rows of the items.  Those of a new item are added, unless "careful":
 * then all are treated as changed where children are concerned, because
 * somebody may have deleted a row and left its children.
 *
 * Raises what an item cannot be decoded or converted for, with store->decoding
 * set to it.  The rows live in rows->cxt and in the current resource owner, so
 * that the end of a failed attempt takes them away; else rowset_end() does.
 */
extern void rowset_load(Store *store, Rows *rows, StoreItem **items, int n, bool careful);
extern void rowset_end(Rows *rows);

#endif							/* ACCESSREQ_ROWSET_H */
