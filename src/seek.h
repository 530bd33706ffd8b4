/*-------------------------------------------------------------------------
 *
 * seek.h
 *	  Looking for actions whose answer was lost, until they are settled.
 *	  Internal to deliveries.c and its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_SEEK_H
#define ACCESSREQ_SEEK_H

#include "sender.h"

/* Begin to look, go on, or write down what was found. */
extern void seek_turn(Sender *s);

/* Let go of what is under way; it is begun again. */
extern void seek_give_up(Sender *s);

/* When there is something to look for again; DT_NOEND: never. */
extern TimestampTz seek_next(Sender *s);

#endif							/* ACCESSREQ_SEEK_H */
