/*-------------------------------------------------------------------------
 *
 * unit.h
 *	  What the two files of the test module share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_UNIT_H
#define ACCESSREQ_UNIT_H

#include "item.h"

/* An item as one JSON object, every field of the struct in it; palloc'd. */
extern char *unit_dump_item(const StatusItem *item);

#endif							/* ACCESSREQ_UNIT_H */
