/*-------------------------------------------------------------------------
 *
 * person.h
 *	  Which names of the tenant's are names.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_PERSON_H
#define ACCESSREQ_PERSON_H

#include "item.h"

/*
 * The name of who "ref" means, as a column shows it, or NULL: one that is blank,
 * that is its own id, or that holds the text of a failed lookup is no name.
 */
extern const char *person_name(const ItemRef *ref);

/* Name the one as the other is named, where they are the same and it has no name. */
extern void person_lend(ItemRef *to, const ItemRef *from);

#endif							/* ACCESSREQ_PERSON_H */
