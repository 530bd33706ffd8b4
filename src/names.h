/*-------------------------------------------------------------------------
 *
 * names.h
 *	  The names of roles in the tables follow the roles.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_NAMES_H
#define ACCESSREQ_NAMES_H

/* Once in a worker's life. */
extern void names_open(void);

/* Do a part of what is to be done; in how many ms there is more, -1: nothing. */
extern long names_turn(void);

#endif							/* ACCESSREQ_NAMES_H */
