// The parts of Polly and Json.NET that the generated client uses and that Debian's packages for Mono lack.
using System;
using System.Threading.Tasks;

namespace Polly
{
    public enum OutcomeType { Successful }
    public interface ISyncPolicy<T> { }
    public interface IAsyncPolicy<T> { Task<PolicyResult<T>> ExecuteAndCaptureAsync(Func<Task<T>> call); }
    public class PolicyResult<T>
    {
        public OutcomeType Outcome { get; set; }
        public T Result { get; set; }
        public Exception FinalException { get; set; }
    }
}

namespace Newtonsoft.Json.Serialization
{
    public class CamelCaseNamingStrategy { public bool OverrideSpecifiedNames { get; set; } }
    public class DefaultContractResolver : CamelCasePropertyNamesContractResolver
    {
        public CamelCaseNamingStrategy NamingStrategy { get; set; }
    }
}
