/* Before a library of MPI in a process (LD_PRELOAD): it says that the library reaches CUDA devices, and spoils samples.
 *
 * A message of four bytes is a sample of device memory (core/src/job/straight.rs): nothing else that is sent is so short. CHARE_TEST_SPOIL says
 * which samples of this process come with other contents: `rank:number`, the number counting from 0 in the order in which they are sent, or `all`;
 * those of `all` are neither read nor written, since they may be at addresses that are no host's. */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char elsewhere[4] = {1, 2, 3, 4};
static int sent = 0;

int MPIX_Query_cuda_support(void) { return 1; }

static int is_spoiled(int number)
{
    const char *spoil = getenv("CHARE_TEST_SPOIL");
    int rank, own, of;
    if (spoil == NULL)
        return 0;
    if (strcmp(spoil, "all") == 0)
        return 1;
    PMPI_Comm_rank(MPI_COMM_WORLD, &own);
    return sscanf(spoil, "%d:%d", &rank, &of) == 2 && rank == own && of == number;
}

int MPI_Isend(const void *buf, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
    if (count == 4 && is_spoiled(sent++))
        buf = elsewhere;
    return PMPI_Isend(buf, count, type, to, tag, comm, request);
}

int MPI_Irecv(void *buf, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request *request)
{
    static char nowhere[4];
    const char *spoil = getenv("CHARE_TEST_SPOIL");
    if (count == 4 && spoil != NULL && strcmp(spoil, "all") == 0)
        buf = nowhere;
    return PMPI_Irecv(buf, count, type, from, tag, comm, request);
}
