/* Before a library of MPI in a process (LD_PRELOAD): it says that the library reaches CUDA devices, and spoils samples.
 *
 * A message of four bytes is a sample of device memory (core/src/job/straight.rs): nothing else that is sent is so short. CHARE_TEST_SPOIL says
 * which samples of this process come with other contents: `rank:number`, the number counting from 0 in the order in which they are sent, or `all`;
 * those of `all` are neither read nor written, since they may be at addresses that are no host's. CHARE_TEST_SWALLOW says so which of them never leave; for
 * `all` no call that would send one comes back. */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char elsewhere[4] = {1, 2, 3, 4};
static char nowhere[4];
static int sent = 0;

int MPIX_Query_cuda_support(void) { return 1; }

static int is_all(const char *variable)
{
    const char *which = getenv(variable);
    return which != NULL && strcmp(which, "all") == 0;
}

static int is_meant(const char *variable, int number)
{
    const char *which = getenv(variable);
    int rank, own, of;
    if (which == NULL)
        return 0;
    if (is_all(variable))
        return 1;
    PMPI_Comm_rank(MPI_COMM_WORLD, &own);
    return sscanf(which, "%d:%d", &rank, &of) == 2 && rank == own && of == number;
}

int MPI_Isend(const void *buf, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
    if (count == 4) {
        int number = sent++;
        if (is_meant("CHARE_TEST_SPOIL", number))
            buf = elsewhere;
        if (is_meant("CHARE_TEST_SWALLOW", number)) {
            while (is_all("CHARE_TEST_SWALLOW"))
                pause();
            /* It waits for what nobody sends. */
            return PMPI_Irecv(nowhere, 4, MPI_BYTE, MPI_ANY_SOURCE, 4711, comm, request);
        }
    }
    return PMPI_Isend(buf, count, type, to, tag, comm, request);
}

int MPI_Irecv(void *buf, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request *request)
{
    if (count == 4 && is_all("CHARE_TEST_SPOIL"))
        buf = nowhere;
    return PMPI_Irecv(buf, count, type, from, tag, comm, request);
}
