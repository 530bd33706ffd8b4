/*
 * bench.c
 *
 * How many pages a second the sandbox serves: one keep-alive connection that
 * reads all rows in pages of 250 by key, over and over, and drops what it
 * reads.  usage: bench PORT TOKEN SECONDS [QUERY]
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char page[4 * 1024 * 1024];

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static int
connect_to(int port)
{
	struct sockaddr_in a;
	int			fd = socket(AF_INET, SOCK_STREAM, 0);

	memset(&a, 0, sizeof(a));
	a.sin_family = AF_INET;
	a.sin_port = htons((uint16_t) port);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *) &a, sizeof(a)) != 0)
	{
		perror("connect");
		exit(1);
	}
	return fd;
}

/* Reads one answer; returns the body's length, or -1. */
static long
read_page(int fd)
{
	size_t		have = 0;
	size_t		want = 0;
	char	   *body = NULL;

	while (body == NULL || have < want)
	{
		ssize_t		n = read(fd, page + have, sizeof(page) - 1 - have);

		if (n <= 0)
			return -1;
		have += (size_t) n;
		page[have] = '\0';
		if (body == NULL && (body = strstr(page, "\r\n\r\n")) != NULL)
		{
			char	   *length = strstr(page, "Content-Length: ");

			body += 4;
			want = (size_t) (body - page) + (length ? strtoul(length + 16, NULL, 10) : 0);
		}
	}
	return (long) (have - (size_t) (body - page));
}

/* The last id of the page, looked for from its end. */
static int
last_id(char id[64])
{
	static const char key[] = "\"accountActivityItemId\":\"";
	char	   *last = NULL;
	size_t		len = strlen(page);

	for (char *p = page + (len > 20000 ? len - 20000 : 0); (p = strstr(p, key)) != NULL; p++)
		last = p;
	return last != NULL && sscanf(last + sizeof(key) - 1, "%63[^\"]", id) == 1;
}

int
main(int argc, char **argv)
{
	char		id[64] = "";
	double		start = now();
	long		pages = 0;
	double		bytes = 0;
	int			fd;

	if (argc < 4)
		return 2;
	fd = connect_to(atoi(argv[1]));
	while (now() - start < atof(argv[3]))
	{
		char		request[4096];
		long		n;

		snprintf(request, sizeof(request),
				 "GET /v2024/access-request-status?limit=250&sorters=accountActivityItemId"
				 "&filters=accountActivityItemId+gt+%%22%s%%22%s HTTP/1.1\r\nHost: sandbox\r\n"
				 "User-Agent: bench\r\nAuthorization: Bearer %s\r\n\r\n",
				 id, argc > 4 ? argv[4] : "", argv[2]);
		if (write(fd, request, strlen(request)) < 0 || (n = read_page(fd)) < 0)
			return 1;
		if (strncmp(page, "HTTP/1.1 200", 12) != 0)
		{
			fprintf(stderr, "%.300s\n", page);
			return 1;
		}
		pages++;
		bytes += (double) n;
		if (!last_id(id))
			id[0] = '\0';
	}
	printf("%.0f pages/s, %.0f KB a page\n", (double) pages / (now() - start),
		   bytes / (double) pages / 1000);
	close(fd);
	return 0;
}
